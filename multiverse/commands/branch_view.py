"""An answer in the terminal: its text, with the branches of each block side by side where they belong."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from multiverse.structure.dialects import Dialect, Tag, registry
from multiverse.wire.events import Branch

NARROWEST = 34
"""Columns that a panel needs; more branches than fit go into a further row."""
_OPENING = (Tag.BLOCK_OPEN, Tag.GOAL_OPEN, Tag.OUTLINE_OPEN, Tag.PATH_OPEN, Tag.CONCLUSION_OPEN)
_COLOURS = {"running": "green", "parked": "yellow"}


class BranchView:
    """Draws branches as they are at the moment.

    Args:
        dialects: whose tags are shown as such; all that are known if not given.
    """

    def __init__(self, dialects: Iterable[Dialect] | None = None) -> None:
        known = [dialect.tags for dialect in dialects or registry.all()]
        self._opening = [tags[tag] for tags in known for tag in _OPENING if tag in tags]
        self._closing = [name for tags in known for tag, name in tags.items() if tag not in _OPENING]

    def render(self, root: Branch, width: int) -> RenderableType:
        """The whole answer in `width` columns."""
        parts: list[RenderableType] = []
        for part in root.parts:
            parts += self._text(part) if isinstance(part, str) else [self._block(part, width)]
        return Group(*parts)

    def _block(self, branches: tuple[Branch, ...], width: int) -> RenderableType:
        per_row = max(1, min(len(branches), width // NARROWEST))
        grid = Table.grid(expand=True)
        for _ in range(per_row):
            grid.add_column(ratio=1)
        panels = [self._panel(branch, width // per_row - 4) for branch in branches]
        for i in range(0, len(panels), per_row):
            grid.add_row(*panels[i : i + per_row])
        return grid

    def _panel(self, branch: Branch, width: int) -> Panel:
        below = f"{branch.tokens} tokens" if branch.tokens else "waiting"
        colour = _COLOURS.get(branch.state, "bright_black")
        return Panel(self.render(branch, width), title=f"branch {branch.label}", subtitle=below, border_style=colour)

    def _text(self, text: str) -> list[RenderableType]:
        """The text with less line breaks around tags than a model writes."""
        for name in self._opening:
            text = text.replace(f"{name}\n", f"{name} ")
        for name in self._closing:
            text = text.replace(f"\n{name}", f" {name}")
        text = text.strip()
        if not text:
            return []
        shown = Text(text)
        shown.highlight_words([*self._opening, *self._closing], "dim cyan")
        return [shown]
