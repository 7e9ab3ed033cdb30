"""What a controller tells its host to do. Carried out in the order they come."""

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
    """Park `strand` once the KV of its last token and of `inject` is there; `children` share all of it."""

    strand: Strand
    children: tuple[Strand, ...]
    inject: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """Let the child `strand` run: extend it by `inject` (its header) from `position` on, then sample."""

    strand: Strand
    inject: tuple[int, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Close:
    """Park the branch `strand` for good, once the KV of its last token and of `inject` is there."""

    strand: Strand
    reason: FinishReason
    inject: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """Splice the KV of `children` behind that of `strand`, extend it by `inject` from `position` on, then sample.

    With a dialect whose join is `prefill` the children's tokens are extended causally instead.
    """

    strand: Strand
    children: tuple[Strand, ...]
    inject: tuple[int, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The request is over; free every strand of it."""

    reason: FinishReason


Action = Fallback | Fork | Start | Close | Join | Finish
