"""Logprob rows of sampled tokens: kept from when a token is sampled until the document stream shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from multiverse.decoding.strand import Strand
from multiverse.decoding.stream import Span

Row = TypeVar("Row")


class SampledRows(Generic[Row]):
    """The rows of one request, of whatever kind a host has. Tokens that the engine wrote have none.

    Args:
        keep_values: keep the logprob of every token for the tree, which comes at the end.
    """

    def __init__(self, keep_values: bool) -> None:
        self.keep_values = keep_values
        self._rows: dict[tuple[int, ...], dict[int, Row]] = {}
        self._values: dict[tuple[int, ...], dict[int, float]] = {}

    def record(self, strand: Strand, offset: int, value: float, row: Row | None) -> None:
        """Note the logprob of the token at `offset` of `strand`, and its row unless the host shows that by itself."""
        if row is not None:
            self._rows.setdefault(strand.key, {})[offset] = row
        if self.keep_values:
            self._values.setdefault(strand.key, {})[offset] = value

    def drop(self, key: tuple[int, ...], offset: int) -> None:
        """Forget what the strand `key` has from `offset` on: those tokens were taken back, others may stand there."""
        for known in (self._rows.get(key, {}), self._values.get(key, {})):
            for at in [at for at in known if at >= offset]:
                del known[at]

    def take(self, spans: Iterable[Span]) -> list[Row | None]:
        """A row per token of what the document stream shows now; they are not kept any longer."""
        return [
            known.pop(at, None)
            for strand, start, end in spans
            for known in [self._rows.get(strand.key, {})]
            for at in range(start, end)
        ]

    def values(self, root: Strand) -> dict[tuple[int, ...], list[float | None]] | None:
        """By strand key, a logprob per token, `None` for those that the engine wrote; nothing if they were not kept."""
        if not self.keep_values:
            return None
        return {
            strand.key: list(map(self._values.get(strand.key, {}).get, range(len(strand.tokens))))
            for strand in root.walk()
        }
