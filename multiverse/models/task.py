"""The task of the embedded model: short arithmetic programs over named lists.

A problem names a few lists, says how each is reduced (sum, max, min) and asks for one number::

    A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B.

Some problems are worth a Multiverse block (the parts do not need each other and are long enough), some are not. The
prompt never says which; a model has to see it. The families:

======  =======================================================  ===========================
kind    what the prompt holds                                    solution
======  =======================================================  ===========================
single  one list                                                 sequential
chain   each part uses the result of the one before              sequential
small   parts without a dependency, none over ``SHORT`` items    sequential
flat    2 to 6 parts without a dependency, combined              one block
nested  2 or 3 groups of parts, combined                         a block, with one in a path
======  =======================================================  ===========================

Every solution is written twice, as the ``multiverse`` dialect writes it and line by line; the reasoning is the same.
Only the standard library is used, so that demos and tests can import this without torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from multiverse.models.draw import (
    LABELS,
    LIMIT,
    SHORT,
    draw_digits,
    draw_numbers,
    draw_operation,
    draw_outer_operation,
    draw_parts,
    longest,
)
from multiverse.models.serialise import Node, block, combine, define, group, leaf

Kind = Literal["single", "chain", "small", "flat", "nested"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WIDTHS: tuple[int, ...] = (2, 3, 4, 5, 6)

HELD_OUT_SEED = 20_260_731

_MIX: dict[Kind, float] = {"single": 1.5, "chain": 1.0, "small": 1.5, "flat": 5.0, "nested": 2.5}
_GROUPS = "PQR"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with its answer and both serialisations of its solution.

    Attributes:
        prompt: what the user asks.
        answer: the number, as text.
        kind: the family.
        width: branches of the outer block; 1 if the problem is not worth a block.
        parallel: the solution in the ``multiverse`` dialect, without the end-of-turn token.
        sequential: the same solution line by line. Equal to `parallel` where no block is worth it.
    """

    prompt: str
    answer: str
    kind: Kind
    width: int
    parallel: str
    sequential: str

    @property
    def forks(self) -> bool:
        """Whether the solution should open a block."""
        return self.width > 1


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the eighth of all prompts that training never sees, whatever the seed."""
    return zlib.crc32(prompt.encode()) % 8 == 0


def generate(
    rng: Random,
    kind: Kind | None = None,
    width: int | None = None,
    level: float = 1.0,
    held_out: bool | None = None,
) -> Problem:
    """Draw one problem.

    Args:
        rng: the only source of randomness.
        kind: the family; drawn from the training mix if None.
        width: parts of a ``flat``, ``chain`` or ``small`` problem, or groups of a ``nested`` one; drawn if None.
        level: difficulty from 0 (short lists, narrow blocks, nothing nested) to 1. This is the training curriculum.
        held_out: True for prompts that training never sees, False for the others, None for any.

    Raises:
        ValueError: if `kind` is unknown, or `width` is not 2 to 6 (2 or 3 for ``nested``).
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}, expected one of {', '.join(KINDS)}")
    if width is not None and width not in (WIDTHS if kind != "nested" else WIDTHS[:2]):
        raise ValueError(f"width {width!r} is out of range for a {kind or 'random'} problem")
    while True:
        mix = [0.0 if k == "nested" and level < 0.3 else w for k, w in _MIX.items()]
        chosen = kind or rng.choices(KINDS, mix)[0]
        problem = _FAMILIES[chosen](rng, width, level)
        # A sum that got too large is drawn again, as is a prompt from the wrong side of the split.
        if problem is not None and (held_out is None or is_held_out(problem.prompt) == held_out):
            return problem


def stream(seed: int, held_out: bool = True, level: float = 1.0) -> Iterator[Problem]:
    """An endless, reproducible sequence of problems in the training mix, by default from the held-out side."""
    rng = Random(seed)
    while True:
        yield generate(rng, level=level, held_out=held_out)


# -- families ---------------------------------------------------------------------------------------------------------


def _single(rng: Random, _width: int | None, level: float) -> Problem | None:
    """One list: digits, or a few larger numbers, which is where sums with a carry are practised."""
    large = rng.random() < 0.7
    items = draw_numbers(rng, rng.randint(2, 4)) if large else draw_digits(rng, rng.randint(4, longest(level)))
    op = draw_operation(rng, (6, 1, 1) if large else (2, 1, 1))
    node = leaf("A", op, items)
    return _sequential("single", f"{define('A', op, items)}. Find A.", node.value, node.lines)


def _chain(rng: Random, width: int | None, level: float) -> Problem | None:
    """Parts as long as those of a block, but each needs the result of the one before."""
    width = width or rng.randint(2, 2 + round(2 * level))
    defines: list[str] = []
    lines: list[str] = []
    value = 0
    for label in LABELS[:width]:
        op, items = draw_operation(rng), draw_digits(rng, rng.randint(3, longest(level) - 1))
        defines.append(define(label, op, [*LABELS[LABELS.index(label) - 1 : LABELS.index(label)], *items]))
        node = leaf(label, op, items if label == "A" else [value, *items])
        value = node.value
        lines += node.lines
    return _sequential("chain", f"{'; '.join(defines)}. Find {LABELS[width - 1]}.", value, lines)


def _small(rng: Random, width: int | None, level: float) -> Problem | None:
    """Like flat, but no list is longer than `SHORT`."""
    width = width or rng.randint(2, 2 + round(4 * level))
    draw = rng.choice((draw_digits, draw_numbers))
    parts = [(label, draw_operation(rng), draw(rng, rng.randint(1, SHORT))) for label in LABELS[:width]]
    nodes = [leaf(*part) for part in parts]
    op = draw_outer_operation(rng, nodes)
    total, value = combine(op, nodes)
    lines = [*(line for node in nodes for line in node.lines), total]
    return _sequential("small", _ask(parts, f"{op} {' '.join(n.label for n in nodes)}"), value, lines)


def _flat(rng: Random, width: int | None, level: float) -> Problem | None:
    """Independent parts, at least one of them long, reduced to one number."""
    width = width or rng.choices(WIDTHS[: 1 + round(4 * level)], (4, 4, 5, 6, 6)[: 1 + round(4 * level)])[0]
    parts = draw_parts(rng, width, level)
    nodes = [leaf(*part) for part in parts]
    op = draw_outer_operation(rng, nodes)
    return _parallel("flat", _ask(parts, f"{op} {' '.join(n.label for n in nodes)}"), op, nodes)


def _nested(rng: Random, width: int | None, level: float) -> Problem | None:
    """Groups of two or three parts; at times one part stands alone beside them."""
    width = width or rng.randint(2, 3)
    sizes = [rng.randint(2, 3) for _ in range(width)]
    if width > 2 or rng.random() < 0.2:
        sizes[rng.randrange(width)] = 1
    parts = draw_parts(rng, sum(sizes), level)
    nodes: list[Node] = []
    names = iter(_GROUPS)
    for start, size in zip((sum(sizes[:i]) for i in range(width)), sizes, strict=True):
        leaves = [leaf(*part) for part in parts[start : start + size]]
        nodes.append(leaves[0] if size == 1 else group(next(names), draw_outer_operation(rng, leaves), leaves))
    op = draw_outer_operation(rng, nodes)
    wanted = " ".join(n.label if n.label in LABELS else f"( {n.outline.split(' = ')[1]} )" for n in nodes)
    return _parallel("nested", _ask(parts, f"{op} {wanted}"), op, nodes)


_FAMILIES: dict[Kind, Callable[[Random, int | None, float], Problem | None]] = {
    "single": _single,
    "chain": _chain,
    "small": _small,
    "flat": _flat,
    "nested": _nested,
}

# -- writing ----------------------------------------------------------------------------------------------------------


def _ask(parts: Sequence[tuple[str, str, Sequence[int]]], wanted: str) -> str:
    return f"{'; '.join(define(*part) for part in parts)}. Find {wanted}."


def _sequential(kind: Kind, prompt: str, value: int, lines: Sequence[str]) -> Problem | None:
    if value > LIMIT:
        return None
    text = "\n".join((*lines, f"Answer: {value}"))
    return Problem(prompt, str(value), kind, 1, text, text)


def _parallel(kind: Kind, prompt: str, op: str, nodes: Sequence[Node]) -> Problem | None:
    conclusion, value = combine(op, nodes)
    lines = [*(line for node in nodes for line in node.lines), conclusion, f"Answer: {value}"]
    text = f"{block(nodes, conclusion)}\nAnswer: {value}"
    return Problem(prompt, str(value), kind, len(nodes), text, "\n".join(lines))
