"""Which weights generated which tokens, where SGLang changes them while a request is taken apart into strands.

SGLang notes at each change how long every answer was. The answer of a tree grows at several places at once, so it is
noted strand by strand, and put into document order for each output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sglang.srt.utils.weight_versions import WeightVersionEvent

from multiverse_sglang.tree import RequestTree

Versions = dict[tuple[int, ...], list[tuple[str, int]]]
"""By strand key: a version, and how many of the strand's tokens there were when it was replaced; in order."""


def begin_versions(tree: RequestTree, events: Iterable[Any]) -> None:
    """Take over what SGLang noted of a request before its first fork, when its answer was that of its root."""
    if marks := [(event.old_version, event.num_output_tokens) for event in events]:
        tree.versions[()] = marks


def note_version(trees: Iterable[RequestTree], old_version: str) -> None:
    """The weights have changed: what `trees` have generated so far is of `old_version`."""
    for tree in trees:
        for strand in tree.controller.root.walk():
            if strand.tokens:
                tree.versions.setdefault(strand.key, []).append((old_version, len(strand.tokens)))


def show_versions(tree: RequestTree, current: str) -> None:
    """Tell SGLang's streamer which versions the tokens that the client is shown are of."""
    if not tree.versions:
        return
    client = tree.client
    events: list[Any] = []
    at = 0
    for strand, start, end in tree.controller.root.spans():
        for version, length in _pieces(tree.versions.get(strand.key, []), start, end, current):
            at += length
            if events and events[-1].old_version == version:
                events.pop()
            events.append(WeightVersionEvent(old_version=version, num_output_tokens=at))
    client.weight_version_events = events


def _pieces(marks: list[tuple[str, int]], start: int, end: int, current: str) -> Iterator[tuple[str, int]]:
    """The tokens `[start, end)` of a strand as versions and how many are of each."""
    for version, stop in [*marks, (current, end)]:
        if start < (stop := min(stop, end)):
            yield version, stop - start
            start = stop
