"""From problems to groups of answers with what each is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multiverse.errors import TrainingError
from multiverse.structure.binding import Binding
from multiverse.training.encode import render_prompt
from multiverse.training.grpo.answer import Answer
from multiverse.training.grpo.engines import Answering, Sampling
from multiverse.training.grpo.rewards import Rewards, advantages
from multiverse.training.grpo.settings import Grpo
from multiverse.training.prompts import Prompt
from multiverse.training.rollouts import Rollout, Row, share, to_row


@dataclass(frozen=True)
class Group:
    """Answers to one problem, and for each its reward and its advantage."""

    answers: list[Answer]
    rewards: list[float]
    advantages: list[float]

    def rows(self, shared: bool) -> list[Row]:
        """What is learnt of it; nothing if no answer is better than another."""
        if not any(self.advantages):
            return []
        pairs = zip(self.answers, self.advantages, strict=True)
        apart = [to_row(answer.rollout, advantage) for answer, advantage in pairs]
        return [share(apart)] if shared else apart


class Collector:
    """Asks an engine and judges what it says.

    Args:
        engine: that of the run.
        tokenizer, binding: of the model.
        settings: of the recipe.
    """

    def __init__(self, engine: Answering, tokenizer: Any, binding: Binding, settings: Grpo) -> None:
        self.engine, self.tokenizer, self.binding, self.settings = engine, tokenizer, binding, settings
        self.rewards = Rewards(settings.rewards)

    def answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Answer]]:
        """A group of answers to each problem."""
        encode = self.tokenizer.encode
        ids = [encode(render_prompt(self.tokenizer, each.messages), add_special_tokens=False) for each in prompts]
        groups = self.engine.answer(ids, sampling)
        return [[self._judge(p, one) for one in group] for p, group in zip(prompts, groups, strict=True)]

    def groups(self, prompts: Sequence[Prompt], seed: int, version: str) -> list[Group]:
        """Groups to learn from.

        Args:
            seed: of the first answer.
            version: what the engine has to call the weights that said them.

        Raises:
            TrainingError: if other weights said one of them: the engine did not take those that it was given.
        """
        asked = self.settings
        sampling = Sampling(asked.answers, asked.temperature, asked.max_tokens, seed)
        found = []
        for answers in self.answers(prompts, sampling):
            for answer in answers:
                versions: list[str | None] = answer.rollout.document("versions")
                if others := set(versions) - {version}:
                    raise TrainingError(f"the engine answers with weights {others}, it was given {version!r}")
            rewards = self.rewards(answers)
            found.append(Group(answers, rewards, advantages(rewards, asked.scale)))
        return found

    def _judge(self, prompt: Prompt, rollout: Rollout) -> Answer:
        text = self.tokenizer.decode(rollout.document("token_ids"))
        silent = {*self.binding.tags, *self.binding.eos}
        said = tuple(
            self.tokenizer.decode(
                [t for t, w in zip(s.token_ids, s.injected, strict=True) if not w and t not in silent]
            )
            for s in rollout.strands
        )
        right = rollout.finish_reason == "stop" and prompt.answer is not None and self._grade(prompt.answer, text)
        return Answer(prompt, rollout, text, said, right, self.binding)

    def _grade(self, expected: str, text: str) -> bool:
        from multiverse.evaluation.grading import Verdict, grade

        return grade(self.settings.grader, expected, text).verdict is Verdict.CORRECT
