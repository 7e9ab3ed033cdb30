"""How the solutions of `multiverse.models.task` are worked out and written: parts, groups of parts, blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multiverse.structure.dialects import TagPair, get_dialect

DIALECT = get_dialect("multiverse")
APPLY: dict[str, Callable[[int, int], int]] = {"sum": lambda a, b: a + b, "max": max, "min": min}


@dataclass(frozen=True, slots=True)
class Node:
    """A part or a group of parts: its label, its outline, its value, and how a branch or a few lines work it out."""

    label: str
    outline: str
    value: int
    branch: Callable[[str], str]
    lines: tuple[str, ...]


def define(label: str, op: str, items: Sequence[int | str]) -> str:
    """A part as the prompt names it."""
    return f"{label} = {op} {' '.join(map(str, items))}"


def leaf(label: str, op: str, items: Sequence[int]) -> Node:
    """A list reduced from the left, one step at a time: ``A = sum 3 5 2 = 8 2 = 10``."""
    left = list(items)
    steps = [" ".join(map(str, left))]
    while len(left) > 1:
        left[:2] = [APPLY[op](left[0], left[1])]
        steps.append(" ".join(map(str, left)))
    text = f"{label} = {op} {' = '.join(steps)}"
    return Node(label, label, left[0], lambda _: text, (text,))


def combine(op: str, nodes: Sequence[Node]) -> tuple[str, int]:
    """Results folded from the left, each fetched by its label: ``sum A 17 B 9 = 26 C 4 = 30``. Short: it is serial."""
    total = nodes[0].value
    text = f"{op} {nodes[0].label} {total}"
    for node in nodes[1:]:
        total = APPLY[op](total, node.value)
        text += f" {node.label} {node.value} = {total}"
    return text, total


def group(label: str, op: str, leaves: Sequence[Node]) -> Node:
    """Several parts as one: in the parallel form its branch holds a block of its own."""
    total, value = combine(op, leaves)
    outline = f"{label} = {op} {' '.join(n.label for n in leaves)}"
    conclusion = f"{label} = {total}"
    lines = (*(line for n in leaves for line in n.lines), conclusion)
    return Node(label, outline, value, lambda number: f"{outline}\n{block(leaves, conclusion, f'{number}.')}", lines)


def block(nodes: Sequence[Node], conclusion: str, prefix: str = "") -> str:
    """A block over `nodes`; `prefix` is the label of the path around it, with a dot."""
    entries = [(node.outline, node.branch(f"{prefix}{i}")) for i, node in enumerate(nodes, 1)]
    return write_block(entries, conclusion, prefix)


def write_block(entries: Sequence[tuple[str, str]], conclusion: str, prefix: str = "") -> str:
    """A block in the text form of the ``multiverse`` dialect, from an outline and a path's text for every branch."""
    numbered = [(f"{prefix}{i}", *entry) for i, entry in enumerate(entries, 1)]
    opening, closing = DIALECT.block
    outlines = "".join(_inside(DIALECT.outline, f"{i}: {outline}") for i, outline, _ in numbered)
    paths = "".join(_inside(DIALECT.path, f"{i}: {text}") for i, _, text in numbered)
    goal, end = DIALECT.goal
    return f"{opening}\n{goal}\n{outlines}{end}\n{paths}{_inside(DIALECT.conclusion, conclusion)}{closing}"


def _inside(tags: TagPair, text: str) -> str:
    """`text` between a pair of tags, a line each."""
    opening, closing = tags
    return f"{opening}\n{text}\n{closing}\n"
