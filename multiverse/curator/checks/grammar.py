"""Does the document parse, with the blocks that the plan has and no others?"""

from __future__ import annotations

from collections.abc import Sequence

from multiverse.curator.artefacts import Item
from multiverse.curator.plan import forks
from multiverse.structure.dialects import Dialect
from multiverse.structure.parser import parse_text


def check_grammar(document: str, plan: Sequence[Item], dialect: Dialect) -> list[str]:
    """`document` is well formed and has the structure of `plan`, so no text in it can be taken for a tag."""
    tree = parse_text(document, dialect)
    if tree.violations:
        return [f"a text breaks the document's structure ({tree.violations[0]}): write no tags in texts"]
    widths = [len(block.paths) for block in tree.walk() if block.parallel]
    wanted = [len(fork.parallel) for fork in forks(plan)]
    if widths != wanted or len(list(tree.walk())) != len(wanted):
        return [f"a text holds tags that make blocks of their own (widths {widths}, planned {wanted}): write no tags"]
    return []


def foreign_tags(text: str, dialect: Dialect) -> list[str]:
    """The tags of `dialect` that stand in a text that should have none."""
    return [tag for tag in dialect.tags.values() if tag in text]


def plain(document: str, dialect: Dialect) -> str:
    """`document` without its tags."""
    tags = set(dialect.tags.values())
    return "".join(str(token) for token in parse_text(document, dialect).tokens if token not in tags)
