"""One answer, as rewards see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from multiverse.structure.binding import Binding
from multiverse.structure.parser import parse_ids
from multiverse.training.prompts import Prompt
from multiverse.training.rollouts import Rollout


@dataclass(frozen=True)
class Answer:
    """An answer to a problem.

    Attributes:
        prompt: what was asked, and the right answer if the data has it.
        rollout: what the engine did.
        text: all that was decoded, tags and the end of the turn included.
        said: of each strand of the rollout what the model itself said, without tags.
        right: whether the stated answer is the right one, and the turn was ended; false if nobody knows.
        binding: of the model.
    """

    prompt: Prompt
    rollout: Rollout
    text: str
    said: tuple[str, ...]
    right: bool
    binding: Binding

    @property
    def tokens(self) -> int:
        """All generated tokens, those that the engine wrote included."""
        return sum(len(strand.token_ids) for strand in self.rollout.strands)

    @cached_property
    def critical_path(self) -> int:
        """Positions from the first generated token to the last."""
        first = self.rollout.layout.positions[len(self.rollout.prompt_ids) - 1] + 1
        return max((strand.positions[-1] + 1 - first for strand in self.rollout.strands if strand.positions), default=0)

    @property
    def branches(self) -> int:
        """How many there are, in blocks within branches too."""
        return len(self.rollout.strands) - 1

    @cached_property
    def well_formed(self) -> bool:
        """Whether the text follows the grammar, every block was forked, and the turn was ended."""
        fallen_back = any(strand.fallbacks for strand in self.rollout.strands)
        tree = parse_ids(self.rollout.ids, self.binding)
        return self.rollout.finish_reason == "stop" and not tree.violations and not fallen_back

    @cached_property
    def spurious(self) -> int:
        """How many branches are for show: they say nothing, or word for word what one before them in the block says."""
        blocks: dict[Any, list[str]] = {}
        for strand, said in zip(self.rollout.strands[1:], self.said[1:], strict=True):
            blocks.setdefault(strand.key[:-1], []).append(" ".join(said.split()))
        return sum(not said or said in block[:at] for block in blocks.values() for at, said in enumerate(block))
