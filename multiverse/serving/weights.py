"""Which weights said which tokens, if they change while a request is decoded in several strands at once.

Hosts note at each change how long every answer was. The answer of a tree grows at several places at once, so this is
noted strand by strand, and put into document order when it is told.
"""

from __future__ import annotations

from collections.abc import Iterator

from multiverse.decoding.strand import Strand

Span = tuple[str, int, int]
"""A version, and from where to where tokens are of it."""


class WeightVersions:
    """The versions of one request's tokens; empty until the weights change for the first time."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], list[tuple[str, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._ends)

    def begin(self, root: Strand, ends: list[tuple[str, int]]) -> None:
        """Take over what a host noted while the answer was that of `root` alone: versions, and where each ended."""
        if ends:
            self._ends[root.key] = ends

    def replaced(self, root: Strand, version: str) -> None:
        """The weights are other ones from now on: what the strands below `root` have said so far is of `version`.

        What is known of earlier versions stands.
        """
        for strand in root.walk():
            known = self._ends.get(strand.key, [])
            if len(strand.tokens) > (known[-1][1] if known else 0):
                self._ends[strand.key] = [*known, (version, len(strand.tokens))]

    def of_strand(self, strand: Strand, current: str) -> list[Span]:
        """Versions of the tokens of `strand`, by offset; those after the last change are of `current`."""
        return list(self._within(strand, 0, len(strand.tokens), current))

    def of_document(self, root: Strand, current: str) -> list[Span]:
        """Versions of the answer in document order, neighbours of one version as one span."""
        spans: list[Span] = []
        at = 0
        for strand, begin, end in root.spans():
            for version, start, stop in self._within(strand, begin, end, current):
                first = spans.pop()[1] if spans and spans[-1][0] == version else at
                at += stop - start
                spans.append((version, first, at))
        return spans

    def _within(self, strand: Strand, start: int, end: int, current: str) -> Iterator[Span]:
        for version, stop in [*self._ends.get(strand.key, ()), (current, end)]:
            if start < (stop := min(stop, end)):
                yield version, start, stop
                start = stop
