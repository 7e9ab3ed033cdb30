"""A problem of the everyday task family, and how its solution is put together from parts."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, get_args

from multiverse.models.serialise import write_block

Kind = Literal["costs", "fits", "form", "one", "chain"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_WIDTHS = {3: 4, 4: 4, 5: 2}
_HELD_OUT_SHARE = 0.2

NAMES = (
    "Mia", "Tom", "Ana", "Leo", "Eva", "Sam", "Ida", "Max", "Zoe", "Ben", "Lea", "Paul", "Nina",
    "Carl", "Rosa", "Jack", "Emma", "Noah", "Lucy", "Adam",
)  # fmt: skip
GOODS = ["pens", "books", "cakes", "cups", "plants", "shirts", "lamps", "toys", "hats", "maps"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, its answer, and its solution in both forms.

    Attributes:
        question: what the user asks.
        parallel: the solution in the ``multiverse`` dialect; equal to `sequential` where no block is worth it.
        sequential: the same solution line by line.
        answer: what stands behind ``Answer:`` at its end.
        kind: the family.
        width: number of parts; 1 if there is no block.
    """

    question: str
    parallel: str
    sequential: str
    answer: str
    kind: Kind
    width: int

    @property
    def held_out(self) -> bool:
        """On which side of the split the problem is: decided by its question alone."""
        return zlib.crc32(self.question.encode()) % 1000 < 1000 * _HELD_OUT_SHARE

    def row(self, number: int) -> dict[str, Any]:
        """The problem as a row of the training schema."""
        return {
            "id": f"{self.kind}-{number}",
            "question": self.question,
            "parallel": self.parallel,
            "sequential": self.sequential,
            "answer": self.answer,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """One independent part: its name, its sentence in the question, how it is worked out, and the result."""

    name: str
    given: str
    work: str
    result: Any


def solve(kind: Kind, question: str, parts: list[Part], conclusion: str, answer: str) -> Problem:
    """The problem with both forms of its solution; a block only if there are several parts."""
    lines = "\n".join(part.work for part in parts)
    end = f"\nAnswer: {answer}"
    if len(parts) == 1:
        return Problem(question, lines + end, lines + end, answer, kind, 1)
    block = write_block([(part.name, part.work) for part in parts], conclusion)
    return Problem(question, block + end, f"{lines}\n{conclusion}{end}", answer, kind, len(parts))


def width(rng: Random) -> int:
    """How many parts a problem has that is worth a block."""
    return rng.choices(list(_WIDTHS), list(_WIDTHS.values()))[0]
