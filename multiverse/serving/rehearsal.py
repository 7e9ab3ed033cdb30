"""One fork, splice and second turn before a host serves anybody: signatures, which tables check, don't show meaning.

A block with a single branch, whose separators advance, is a causal sequence: what it yields has to be what the host
itself says about the same tokens, as of a request that never forks. With its positions shifted it has to be something
else. Branch and prefix end within KV blocks, so that blocks are shared, copied, adopted and moved. A block with two
branches comes again as a prompt: it is found in the prefix cache, and what follows has to be what followed before.
"""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from multiverse.decoding.budgets import FinishReason, Limits
from multiverse.decoding.controller import Admit, Controller
from multiverse.decoding.goal import Goal
from multiverse.decoding.splice import kv_order
from multiverse.decoding.strand import Status, Strand
from multiverse.errors import UnsupportedHostError
from multiverse.serving.options import Options
from multiverse.serving.support import Support
from multiverse.structure.binding import Binding
from multiverse.structure.dialects import Tag

SAMPLED = 3
"""Tokens that are sampled in the branch, and again after the join."""
STEPS = 1000
"""A request that takes more of a host's steps does not end."""
SHIFT = 16
"""Positions by which the branch of the second run begins too early."""
TOLERANCE = 0.5
"""Largest difference in log-probability, in nats. 16-bit models round to about 0.1; a wrong block costs several."""
BEGIN, OUTLINE = (Tag.BLOCK_OPEN, Tag.GOAL_OPEN), (Tag.OUTLINE_OPEN, Tag.OUTLINE_CLOSE)


class Played(NamedTuple):
    """New tokens of a request, and what the host says of each: 0.0 of one that was not sampled."""

    tokens: list[int]
    logprobs: list[float]


class Stage(Protocol):
    """What a host has to do. Requests are greedy, don't end at an end-of-sequence token, and run one at a time.

    Attributes:
        name: of the host.
        binding: of the model.
        block: tokens of a KV block or page.
        vocabulary: ids that a model of this size knows.
        caches: whether there is a prefix cache.
        context: tokens that a request may have.
        made_up: whether its weights are (`--load-format dummy`).
        obstacle: why this host, as it is configured, can't rehearse; `None` if it can.
    """

    name: str
    binding: Binding
    block: int
    vocabulary: int
    caches: bool
    context: int
    made_up: bool
    obstacle: str | None

    def play(self, prompt: list[int], options: Options, max_tokens: int) -> Played:
        """Serve a request to its end, as one that comes from a client, with these options of the server."""

    def score(self, tokens: list[int]) -> list[float]:
        """The host's own logprobs of all tokens but the first, computed anew, without the plugin."""

    def found(self) -> int:
        """Tokens of prompts with blocks that were found in the prefix cache so far."""

    def left(self) -> list[str]:
        """What is left over, in sentences, now that nothing runs."""


class _Rehearsed(Controller):
    """Forks into a single branch, `shift` positions early, and ends branch and root after a few tokens."""

    shift = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._sampled: Counter[tuple[object, int]] = Counter()
        super().__init__(*args, **kwargs)

    def _refusal(self, _: Strand, goal: Goal) -> None:
        goal.fork -= self.shift

    def room(self) -> int:
        return 0  # it counts each token

    def accept(self, strand: Strand, token: int) -> Any:
        if strand.status is Status.RUNNING:
            part = (strand.key, len(strand.forks))
            self._sampled[part] += 1
            if self._sampled[part] > SAMPLED:
                return self.end(strand, FinishReason.LENGTH)
        return super().accept(strand, token)


@dataclass(frozen=True)
class _Script(Options):
    """Options of a server whose requests are decided about by the controller above."""

    binding: Binding | None = None
    shift: int = 0

    def controller(self, binding: Binding, limits: Limits, prompt: Sequence[int], admit: Admit | None) -> Controller:
        del limits, admit
        made = _Rehearsed(self.binding or binding, prompt=prompt, separators="advance")
        made.shift = self.shift
        return made


def rehearse_before_serving(stage: Stage, known: Support, logger: logging.Logger) -> bool:
    """Rehearse if the host can, and say whether it did; in a release that was never tested, it has to.

    Raises:
        UnsupportedHostError: see `rehearse`; or because it has to and can't.
    """
    if warning := known.warning():
        logger.warning(warning)
    why = stage.obstacle
    if why is None and length(stage.block) > stage.context:
        why = f"a context of {stage.context} tokens is too short for KV blocks of {stage.block}"
    if why is None and stage.made_up:
        why = "positions hardly show in weights that are made up (--load-format dummy)"
    if why is None:
        logger.info("multiverse: %s", rehearse(stage))
        return True
    if not known.is_tested:
        raise UnsupportedHostError(f"a release that was never tested has to rehearse, and can't: {why}")
    logger.info("multiverse: no rehearsal: %s", why)
    return False


def endless() -> UnsupportedHostError:
    """What to raise of a request that does not end in `STEPS`."""
    return UnsupportedHostError(f"a rehearsed request does not end in {STEPS} steps")


def rehearse(stage: Stage) -> str:
    """Fork, splice and come again, in a host that serves nobody yet; says how far off it was.

    Raises:
        UnsupportedHostError: with everything that is not as it has to be.
    """
    binding, one, two = _write(stage)
    plain = _difference(stage, one[: stage.block // 2], Options())
    right = _difference(stage, one, _Script(binding=binding))
    shifted = _difference(stage, one, _Script(binding=binding, shift=SHIFT))
    again, found = _come_again(stage, two, _Script(binding=binding))
    left, forward = stage.left(), f"from {stage.name}'s own forward"
    problems = {
        f"a rehearsed fork and splice differs by {right:.3g} nats {forward} (at most {TOLERANCE}), and by "
        f"{shifted:.3g} with shifted positions": right > TOLERANCE or shifted < 2 * right,
        f"a rehearsed request that never forks differs by {plain:.3g} nats {forward}": plain > TOLERANCE,
        f"a rehearsed tree that comes again differs by {again:.3g} nats from what it was": again > TOLERANCE,
        f"of a rehearsed tree that comes again {found} tokens are in the prefix cache, no more than of a plain one": (
            stage.caches and binding.dialect.join == "splice" and found <= len(two)
        ),
        f"a rehearsal leaves something over ({'; '.join(left)})": bool(left),
    }
    if wrong := [problem for problem, so in problems.items() if so]:
        raise UnsupportedHostError(
            f"{'; '.join(wrong)}: this {stage.name}, or this model, does something that the adapter does not know. "
            "Serve without --plugin multiverse, and please report it"
        )
    return f"fork and splice rehearsed, {max(plain, right, again):.2g} nats off ({shifted:.2g} with shifted positions)"


def length(block: int) -> int:
    """Tokens that a rehearsal may need in a context."""
    return 4 * block + 64


def _write(stage: Stage) -> tuple[Binding, list[int], list[int]]:
    """A binding by which branches begin with more than a KV block, and prompts that end with a goal of one and of two.

    The block of two is joined where a KV block ends, which then is in the prefix cache.
    """
    known, size = stage.binding, stage.block
    ordinary = [token for token in range(min(stage.vocabulary, 1000)) if token not in known.tags.keys() | known.eos]
    filler = [ordinary[37 * at % len(ordinary)] for at in range(3 * size)]
    binding = copy.copy(known)
    headers = {label: (*known.path_header(label), *filler[: size + 5]) for label in ("1", "2")}
    binding.path_header = lambda label: headers[label]  # type: ignore[method-assign]
    begin = size // 2 + 3
    prompt = filler[:begin] + _goal(known, 2)
    controller = _Rehearsed(binding, prompt=prompt, separators="advance")
    controller.begin()
    while running := [strand for strand in controller.root.walk() if strand.status is Status.RUNNING and strand.parent]:
        controller.accept(running[0], ordinary[0])
    joined, _ = kv_order(controller, controller.root, size).spans[-1]
    return binding, filler[:begin] + _goal(known, 1), filler[: begin + -joined % size] + _goal(known, 2)


def _goal(binding: Binding, width: int) -> list[int]:
    tags = (*BEGIN, *OUTLINE * width, Tag.GOAL_CLOSE)
    return [binding.ids[tag] for tag in tags if tag in binding.ids]


def _difference(stage: Stage, prompt: list[int], options: Options) -> float:
    """The largest difference between what a request's tokens were sampled with and a causal forward."""
    most = length(stage.block) if isinstance(options, _Script) else 2 * SAMPLED
    played = stage.play(prompt, options, most)
    expected = stage.score(prompt + played.tokens)[len(prompt) - 1 :]
    if len(expected) != len(played.logprobs):
        return math.inf
    pairs = zip(played.logprobs, expected, strict=True)
    return max((abs(value - other) for value, other in pairs if value != 0.0), default=math.inf)


def _come_again(stage: Stage, prompt: list[int], options: Options) -> tuple[float, int]:
    """The largest difference between what follows a tree, and what follows it as a prompt, while they are the same.

    Returns:
        also how many tokens of that prompt were found in the prefix cache.
    """
    first, before = stage.play(prompt, options, length(stage.block)), stage.found()
    again = stage.play(prompt + first.tokens[:-SAMPLED], _Script(), length(stage.block))
    worst, found = math.inf, stage.found() - before
    said = zip(first.tokens[-SAMPLED:], again.tokens, first.logprobs[-SAMPLED:], again.logprobs, strict=False)
    for at, (token, other, value, now) in enumerate(said):
        worst = abs(value - now) if at == 0 else max(worst, abs(value - now))
        if token != other:
            break
    return worst, found
