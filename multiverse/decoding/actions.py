"""The journal of a request: what its controller decided, in order.

Hosts reconcile by looking at the strands themselves, which say what has to be computed, from where and at which
position. Actions say what happened, so that clients can be told as it happens (`multiverse.decoding.stream`).
"""

from __future__ import annotations

from dataclasses import dataclass

from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.strand import Strand
from multiverse.structure.reasons import Reason


@dataclass(frozen=True, slots=True)
class Fallback:
    """The goal that `strand` just closed is not forked. The strand simply goes on."""

    strand: Strand
    reason: Reason


@dataclass(frozen=True, slots=True)
class Fork:
    """`strand` is parked once the KV of its tokens is there; `children` share all of it."""

    strand: Strand
    children: tuple[Strand, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """The branch `strand` runs: its header is computed, then it samples."""

    strand: Strand


@dataclass(frozen=True, slots=True)
class Close:
    """The branch `strand` is parked for good, once the KV of its tokens is there."""

    strand: Strand
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Join:
    """The KV of its last branches is spliced behind that of `strand`, which goes on with the conclusion header.

    With a dialect whose join is `prefill` the branches' tokens are extended causally instead.
    """

    strand: Strand


@dataclass(frozen=True, slots=True)
class Finish:
    """The request is over, and every strand of it."""

    reason: FinishReason


Action = Fallback | Fork | Start | Close | Join | Finish
