"""What to watch: are answers right, do they fork, and do their branches do any work?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from multiverse.models.evaluate import Outcome
from multiverse.training.grpo.answer import Answer
from multiverse.training.grpo.collector import Group


def of_step(groups: Sequence[Group]) -> dict[str, float]:
    """Figures of the answers of one step; shares are 0 to 1.

    `serial_collapse` is the share of the answers without a branch: at 1 nothing is left that could be rewarded for
    forking. `spurious_branches` is the share of the branches that are for show (`Answer.spurious`). `learnt_groups` are
    those whose answers are not all worth the same.
    """
    answers = list(chain.from_iterable(group.answers for group in groups))
    rewards = list(chain.from_iterable(group.rewards for group in groups))
    branches = sum(answer.branches for answer in answers)
    return {
        "reward": _mean(rewards),
        "right": _mean([answer.right for answer in answers]),
        "well_formed": _mean([answer.well_formed for answer in answers]),
        "serial_collapse": _mean([not answer.branches for answer in answers]),
        "spurious_branches": sum(answer.spurious for answer in answers) / branches if branches else 0.0,
        "tokens": _mean([answer.tokens for answer in answers]),
        "critical_path": _mean([answer.critical_path for answer in answers]),
        "parallel_degree": _degree(answers),
        "learnt_groups": _mean([any(group.advantages) for group in groups]),
    }


def of_held_out(answers: Sequence[Answer]) -> dict[str, float]:
    """Figures of answers to problems that are not learnt from, `_block` those of problems that are worth a block."""
    outcomes = [outcome(answer) for answer in answers]
    known = [one for one, answer in zip(outcomes, answers, strict=True) if answer.prompt.worth_block is not None]
    blocks = [answer for answer in answers if answer.prompt.worth_block]
    spurious, branches = sum(a.spurious for a in answers), sum(a.branches for a in answers)
    return {
        "problems": float(len(answers)),
        "right": _mean([one.exact for one in outcomes]),
        "fork_right": _mean([one.forks == one.should_fork for one in known]),
        "fork_right_block": _mean([one.forks for one in known if one.should_fork]),
        "fork_wrong": _mean([one.forks for one in known if not one.should_fork]),
        "well_formed": _mean([one.well_formed for one in outcomes]),
        "parallel_degree_block": _degree(blocks),
        "critical_path_block": _mean([answer.critical_path for answer in blocks]),
        "spurious_branches": spurious / branches if branches else 0.0,
    }


def outcome(answer: Answer) -> Outcome:
    """An answer as `multiverse.models.evaluate` counts it; its group is its problem's id up to the first dash."""
    return Outcome(
        group=answer.prompt.id.partition("-")[0],
        exact=answer.right,
        forks=answer.branches > 0,
        should_fork=bool(answer.prompt.worth_block),
        well_formed=answer.well_formed,
        tokens=answer.tokens,
        critical_path=answer.critical_path,
    )


def _degree(answers: Sequence[Answer]) -> float:
    """Tokens per position, over all answers together."""
    return sum(a.tokens for a in answers) / max(1, sum(a.critical_path for a in answers))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
