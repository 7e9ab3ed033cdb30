"""Stops as SGLang has them: what a request wants, and what a stop string in a strand is told as.

SGLang looks for stop strings itself while a request is its own. Once it is taken apart into strands, its runs look for
none: the search goes strand by strand and survives that a strand is computed by another run.
"""

from __future__ import annotations

from collections.abc import Iterable

from sglang.srt.managers.schedule_batch import FINISH_MATCHED_STR

from multiverse.serving.stops import Stops
from multiverse_sglang.channels import FROM_END
from multiverse_sglang.host import Request


def turn_ends(tokenizer: object, of_model: Iterable[int] | None) -> frozenset[int]:
    """Ids at which SGLang ends any request that does not ignore them: the tokenizer's, and those of the model."""
    own = getattr(tokenizer, "eos_token_id", None)
    more = getattr(tokenizer, "additional_stop_token_ids", None) or ()
    return frozenset((*more, *(of_model or ()), *(() if own is None else (own,))))


def wanted_stops(request: Request) -> Stops:
    """What a request wants to end at."""
    parameters = request.sampling_params
    return Stops(
        strings=tuple(parameters.stop_strs or ()),
        tokens=frozenset(parameters.stop_token_ids or ()) - turn_ends(request.tokenizer, request.eos_token_ids),
        keep=parameters.no_stop_trim,
        min_tokens=parameters.min_new_tokens,
    )


class MatchedInStrand(FINISH_MATCHED_STR):
    """A stop string that the root sampled last. It may stand elsewhere too: in branches, in what the engine wrote."""

    def __init__(self, matched: str, from_end: int) -> None:
        super().__init__(matched)
        self.from_end = from_end

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), FROM_END: self.from_end}
