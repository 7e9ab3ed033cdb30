"""Which weights generated which tokens, in SGLang's words: it notes at each change how long every answer was."""

from __future__ import annotations

from collections.abc import Iterable

from sglang.srt.utils.weight_versions import WeightVersionEvent

from multiverse_sglang.scheduler.tree import RequestTree


def begin_versions(tree: RequestTree, events: Iterable[WeightVersionEvent]) -> None:
    """Take over what SGLang noted of a request before its first fork, when its answer was that of its root."""
    tree.weights.begin(tree.controller.root, [(event.old_version, event.num_output_tokens) for event in events])


def note_version(trees: Iterable[RequestTree], old_version: str) -> None:
    """The weights have changed: what `trees` have generated so far is of `old_version`."""
    for tree in trees:
        tree.weights.replaced(tree.controller.root, old_version)


def show_versions(tree: RequestTree, current: str) -> None:
    """Tell SGLang's streamer which versions the tokens that the client is shown are of."""
    if tree.weights:
        tree.client.weight_version_events = [
            WeightVersionEvent(old_version=version, num_output_tokens=end)
            for version, _, end in tree.weights.of_document(tree.controller.root, current)
        ]
