"""A request in the terminal: its text, with the branches of each block side by side where they belong."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from multiverse.dialects import Dialect, Tag
from multiverse.strand import Status, Strand

NARROWEST = 34
"""Columns that a panel needs; more branches than fit go into a further row."""


class StrandView:
    """Draws the strands of a request as they are at the moment."""

    def __init__(self, root: Strand, tokenizer: Any, dialect: Dialect) -> None:
        self._root = root
        self._tokenizer = tokenizer
        self._tags = dialect.tags

    def render(self, width: int) -> RenderableType:
        """The whole request in `width` columns."""
        return self._strand(self._root, width)

    def _strand(self, strand: Strand, width: int) -> RenderableType:
        parts: list[RenderableType] = []
        at = 0
        for offset, children in strand.forks:
            parts += self._text(strand.tokens[at:offset])
            parts.append(self._branches(children, width))
            at = offset
        return Group(*parts, *self._text(strand.tokens[at:]))

    def _branches(self, children: tuple[Strand, ...], width: int) -> RenderableType:
        per_row = max(1, min(len(children), width // NARROWEST))
        grid = Table.grid(expand=True)
        for _ in range(per_row):
            grid.add_column(ratio=1)
        panels = [self._panel(child, width // per_row - 4) for child in children]
        for i in range(0, len(panels), per_row):
            grid.add_row(*panels[i : i + per_row])
        return grid

    def _panel(self, child: Strand, width: int) -> Panel:
        style = {Status.RUNNING: "green", Status.PARKED: "yellow"}.get(child.status, "bright_black")
        below = f"{len(child.tokens)} tokens" if child.tokens else "waiting"
        body = self._strand(child, width)
        return Panel(body, title=f"branch {child.label}", subtitle=below, border_style=style)

    def _text(self, tokens: list[int]) -> list[RenderableType]:
        """Tokens as text, with less line breaks around tags than a model writes."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        for tag, name in self._tags.items():
            opens = tag in (Tag.BLOCK_OPEN, Tag.GOAL_OPEN, Tag.OUTLINE_OPEN, Tag.PATH_OPEN, Tag.CONCLUSION_OPEN)
            text = text.replace(f"{name}\n", f"{name} ") if opens else text.replace(f"\n{name}", f" {name}")
        text = text.strip()
        if not text:
            return []
        shown = Text(text)
        shown.highlight_words(list(self._tags.values()), "dim cyan")
        return [shown]
