"""What a host tells a client about one request: figures, and on demand the tree with everything it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multiverse.decoding.controller import Controller
from multiverse.decoding.document import Logprobs, statistics, to_transcript
from multiverse.decoding.strand import Strand
from multiverse.serving.weights import Span
from multiverse.structure.layout import layout

Times = Mapping[tuple[int, ...], float]
"""By strand key, seconds since the request came."""


@dataclass(frozen=True)
class Observed:
    """What only the host knows.

    Attributes:
        recomputed_tokens: tokens computed again after preemption.
        started, closed: when each branch began to be computed, and when its KV was complete; of the root, when the
            request came and when it ended.
        held: by strand key, seconds for which branches were held back; none if no policy held any.
        accepted_draft_tokens: how many of its tokens were drafted.
        logprobs: of the strands' tokens; `None` for those that the engine wrote.
        weights: by strand key, the versions of the weights that said its tokens; `None` if the host names none.
    """

    recomputed_tokens: int = 0
    started: Times = field(default_factory=dict)
    closed: Times = field(default_factory=dict)
    held: Times = field(default_factory=dict)
    accepted_draft_tokens: int = 0
    logprobs: Logprobs | None = None
    weights: Mapping[tuple[int, ...], list[Span]] | None = None


def report(controller: Controller, observed: Observed, with_tree: bool = False) -> dict[str, Any]:
    """The record of a request as JSON-ready data.

    Returns:
        `tokens`, `critical_path_tokens`, `parallel_degree`, `blocks`, `branches`, `max_width`, `depth`,
        `injected_tokens`, `recomputed_tokens`, `accepted_draft_tokens`, `fallbacks` (number by reason) and
        `finish_reason`; with `with_tree` also `tree`: one entry per strand in document order.
    """
    transcript = to_transcript(controller)
    start = len(controller.prompt.ids)
    figures = statistics(transcript, start, controller.separators)
    record: dict[str, Any] = {
        "tokens": controller.ledger.used,
        "critical_path_tokens": figures.critical_path,
        "parallel_degree": round(figures.parallel_degree, 4),
        "blocks": figures.blocks,
        "branches": sum(1 for _ in controller.root.walk()) - 1,
        "max_width": figures.max_width,
        "depth": figures.depth,
        "injected_tokens": controller.ledger.injected,
        "recomputed_tokens": observed.recomputed_tokens,
        "accepted_draft_tokens": observed.accepted_draft_tokens,
        "fallbacks": _fallbacks(controller),
        "finish_reason": controller.finish_reason and str(controller.finish_reason),
    }
    if with_tree:
        positions = layout(transcript, controller.separators, controller.binding.dialect.join).positions[start:]
        record["tree"] = _tree(controller, positions, observed)
    return record


def _fallbacks(controller: Controller) -> dict[str, int]:
    counts: dict[str, int] = {}
    for strand in controller.root.walk():
        for reason in strand.fallbacks.values():
            counts[str(reason)] = counts.get(str(reason), 0) + 1
    return dict(sorted(counts.items()))


def _tree(controller: Controller, positions: list[int], observed: Observed) -> list[dict[str, Any]]:
    """One entry per strand: where it hangs, its token ids, their positions, and what is known about its end."""
    placed: dict[tuple[int, ...], list[int]] = {}
    at = 0
    for strand, start, end in controller.root.spans():
        placed.setdefault(strand.key, []).extend(positions[at : at + end - start])
        at += end - start
    return [_entry(strand, placed.get(strand.key, []), observed) for strand in controller.root.walk()]


def _entry(strand: Strand, positions: list[int], observed: Observed) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "key": list(strand.key),
        "parent": None if strand.parent is None else list(strand.parent.key),
        "label": strand.label,
        "token_ids": list(strand.tokens),
        "positions": positions,
        "forks": [offset for offset, _ in strand.forks],
        "finish_reason": strand.finish_reason and str(strand.finish_reason),
        "fallbacks": [[offset, str(reason)] for offset, reason in sorted(strand.fallbacks.items())],
    }
    entry["started"] = _rounded(observed.started.get(strand.key))
    entry["closed"] = _rounded(observed.closed.get(strand.key))
    if observed.held:
        entry["held"] = round(observed.held.get(strand.key, 0.0), 6)
    if observed.logprobs is not None:
        entry["logprobs"] = list(observed.logprobs.get(strand.key, ()))
    if observed.weights is not None:
        entry["weight_versions"] = [list(span) for span in observed.weights.get(strand.key, ())]
    return entry


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
