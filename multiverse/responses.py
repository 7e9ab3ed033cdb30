"""What a host adds to its OpenAI responses: figures in `usage`, events and trees in the choices. Same on every host."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

FIELD = "multiverse"
"""Name of the field in requests, in `usage` and in choices."""
_SUMS = ("tokens", "critical_path_tokens", "blocks", "branches", "injected_tokens", "recomputed_tokens")
_MAXIMA = ("max_width", "depth")


def usage(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`usage.multiverse`: the figures of one answer, or of several answers (`n > 1`) together.

    Args:
        records: as `multiverse.report.report` makes them; at least one.
    """
    known = list(records)
    figures: dict[str, Any] = {name: sum(record[name] for record in known) for name in _SUMS}
    figures["parallel_degree"] = round(figures["tokens"] / max(1, figures["critical_path_tokens"]), 4)
    figures |= {name: max(record[name] for record in known) for name in _MAXIMA}
    fallbacks: Counter[str] = Counter()
    for record in known:
        fallbacks.update(record["fallbacks"])
    return figures | {"fallbacks": dict(sorted(fallbacks.items()))}


def extra_chunk(kind: str, head: Mapping[str, Any], index: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A chunk of a stream that adds nothing to the text: clients that know nothing of it read an empty delta.

    Args:
        kind: `chat.completion.chunk` or `text_completion`.
        head: `id`, `created` and `model` of the stream's other chunks.
        index: the choice that it is about.
        payload: `{"events": [...]}`, or the record of a finished choice with its `tree`.
    """
    nothing: dict[str, Any] = {"text": ""} if kind == "text_completion" else {"delta": {}}
    choice = {"index": index, **nothing, "finish_reason": None, FIELD: dict(payload)}
    return {**head, "object": kind, "choices": [choice]}


def add_texts(record: Mapping[str, Any], tokenizer: Any, skip_special_tokens: bool) -> None:
    """Give every strand of a record's tree its `texts`: one before each of its blocks, and one after the last."""
    for strand in record.get("tree", ()):
        ids, cuts = strand["token_ids"], [0, *strand["forks"], len(strand["token_ids"])]
        strand["texts"] = [
            tokenizer.decode(ids[start:end], skip_special_tokens=skip_special_tokens)
            for start, end in itertools.pairwise(cuts)
        ]
