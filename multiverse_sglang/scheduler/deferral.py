"""Requests that nothing is done for as long as they sample no tag: most of them, and most tokens.

SGLang serves them by itself. Each step its sampled tokens are looked at once, all together. Whoever is about to get a
tag is enrolled before SGLang hands it out, and is then as if it had been watched from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from multiverse.serving.options import Options
from multiverse_sglang.channels import DEFERRED
from multiverse_sglang.host import Batch, Request, Result


@dataclass(frozen=True, slots=True)
class Deferred:
    """What is known of a request that may fork and has sampled no tag so far.

    Attributes:
        options: the client's, on top of the server's.
        asked: whether the client gave options, and so gets a record in any case.
        rank, arrived: who comes first when memory is short (`multiverse.serving.pressure`).
        created: when it came, in monotonic seconds.
        answer: called with the request once SGLang has ended it, if it was asked for a record, and with how many of the
            drafts that were accepted last stand behind its end.
    """

    options: Options
    asked: bool
    rank: int
    arrived: float
    created: float
    answer: Callable[[Request, int], None]


def deferred_of(request: Request) -> Deferred | None:
    """What is known of `request`, if it is deferred."""
    found: Deferred | None = getattr(request, DEFERRED, None)
    return found


class Sampled(NamedTuple):
    """What a step sampled.

    Attributes:
        tokens: all of it, row after row.
        lengths: with drafts, how many of each row: those that were accepted, and one behind them. `None`: one of each.
    """

    tokens: Sequence[int]
    lengths: Sequence[int] | None = None

    @property
    def rows(self) -> list[Sequence[int]]:
        """The tokens of each row; made when it is asked for, which in most steps nobody does."""
        if self.lengths is None:
            return [(token,) for token in self.tokens]
        tokens = iter(self.tokens)
        return [tuple(islice(tokens, length)) for length in self.lengths]


def watch(deciding: frozenset[int], batch: Batch, sampled: Sampled, enrol: Callable[[Request], None]) -> None:
    """Before SGLang hands out a step's tokens: `enrol` the requests that get the first of the `deciding` ones."""
    if deciding.isdisjoint(sampled.tokens):
        return
    for request, row in zip(batch.reqs, sampled.rows, strict=False):  # beams have rows without a request
        if not deciding.isdisjoint(row) and deferred_of(request) is not None and not request.finished():
            enrol(request)


def sampled_in(batch: Batch, result: Result) -> Sampled:
    """The tokens of a step."""
    if result.next_token_ids is None:  # nothing was to be computed
        return Sampled(())
    if result.copy_done is not None:
        result.copy_done.synchronize()  # as SGLang does next
    found: list[int] = result.next_token_ids.tolist()
    if result.accept_lens is None:
        return Sampled(found)
    width = len(found) // max(1, len(batch.reqs))  # of a row, filled up; one where no drafts were tried
    lengths: list[int] = result.accept_lens.tolist()
    return Sampled([token for at, length in enumerate(lengths) for token in found[at * width :][:length]], lengths)
