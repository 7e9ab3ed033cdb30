"""The finished (or growing) document of a request: its strands put back into one transcript, and figures about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from multiverse.decoding.controller import Controller
from multiverse.decoding.strand import Strand
from multiverse.structure.builder import Builder
from multiverse.structure.layout import Separators, layout
from multiverse.structure.reasons import Reason
from multiverse.structure.tree import Transcript

Logprobs = Mapping[tuple[int, ...], Sequence[float | None]]
"""By strand key, one value per token of the strand; `None` where there is none."""


def to_transcript(controller: Controller, logprobs: Logprobs | None = None) -> Transcript:
    """Prompt and completion of a request as one transcript, in document order.

    The tree follows what was really forked, so laying it out gives the positions at which every token was computed.
    `logprobs`, if given, are put into the same order.
    """
    builder = controller.prompt.builder()
    reasons: dict[int, Reason] = {}
    _write(controller.root, builder, reasons)
    transcript = builder.finish()
    for block in transcript.walk():
        if block.goal_close is not None and block.goal_close in reasons:
            block.reason = reasons[block.goal_close]
    transcript = controller.prompt.complete(transcript)
    if logprobs is not None:
        transcript.logprobs = [None] * len(controller.prompt.ids)
        for strand, start, end in controller.root.spans():
            transcript.logprobs += logprobs[strand.key][start:end] if end > start else ()
    return transcript


def _write(strand: Strand, builder: Builder, reasons: dict[int, Reason]) -> None:
    """Append what `strand` wrote after its header and before its path-close, its children in their places."""
    at = len(strand.header)
    for offset, children in strand.forks:
        _extend(strand, builder, at, offset, reasons)
        for child in children:
            if child.tokens:
                parent = builder.open_path(child.header)
                _write(child, builder, reasons)
                rest = [] if child.close is None else child.tokens[child.close :]
                builder.close_path(parent, rest, 0 if rest else None)
        at = offset
    _extend(strand, builder, at, len(strand.tokens) if strand.close is None else strand.close, reasons)


def _extend(strand: Strand, builder: Builder, start: int, end: int, reasons: dict[int, Reason]) -> None:
    base = len(builder) - start
    first = start if start else -len(builder)  # a goal that was closed in the prompt has a negative offset
    reasons.update({base + at: reason for at, reason in strand.fallbacks.items() if first <= at < end})
    builder.extend(strand.tokens[start:end])


@dataclass(frozen=True)
class Statistics:
    """Figures about one transcript.

    Attributes:
        well_formed: whether it follows the grammar.
        first_violation: the first place where it doesn't, in words.
        tokens: tokens from `start` on.
        critical_path: positions from the first of them to the last.
        parallel_degree: `tokens / critical_path`, the #parallel of the paper; 1.0 for an empty transcript.
        blocks: number of blocks, also unfinished ones.
        parallel_blocks: those whose paths are parallel.
        max_width: outlines of the widest block.
        depth: levels of nesting; 0 without a block.
        fallbacks: sequential blocks by reason.
        stray_text: places between the parts of parallel blocks that hold more than the separator: no engine that forks
            writes that.
    """

    well_formed: bool
    first_violation: str | None
    tokens: int
    critical_path: int
    parallel_degree: float
    blocks: int
    parallel_blocks: int
    max_width: int
    depth: int
    fallbacks: dict[str, int] = field(default_factory=dict)
    stray_text: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready data."""
        return asdict(self)


def statistics(transcript: Transcript, start: int = 0, separators: Separators = "overlap") -> Statistics:
    """Count `transcript` from the token at `start` (the length of the prompt) on."""
    blocks = [block for block in transcript.walk() if block.end > start]  # also one that the prompt left open
    tokens = len(transcript) - start
    critical_path = layout(transcript, separators).critical_path(start)
    reasons = Counter(str(block.reason) for block in blocks if block.reason is not None)
    violations = [violation for violation in transcript.violations if violation.index >= start]
    return Statistics(
        well_formed=not violations,
        first_violation=str(violations[0]) if violations else None,
        tokens=tokens,
        critical_path=critical_path,
        parallel_degree=tokens / critical_path if critical_path else 1.0,
        blocks=len(blocks),
        parallel_blocks=sum(block.parallel for block in blocks),
        max_width=max((block.width for block in blocks), default=0),
        depth=max((block.depth for block in blocks), default=0),
        fallbacks=dict(sorted(reasons.items())),
        stray_text=sum(end > start for _, end in transcript.stray_text),
    )
