"""What SGLang sends to the detokenizer, read for the suite."""

from __future__ import annotations

from typing import Any


def ending(reason: dict[str, Any]) -> str:
    """Why a request ended; of an abort, what its client is told."""
    return f"abort: {reason.get('message')}" if reason["type"] == "abort" else str(reason["type"])


def entries(output: Any, place: int, kind: str = "output") -> list[dict[int, float] | None]:
    """All logprobs that `output` has of request number `place`, by token id: for each new token or, of kind `input`,
    for each of the prompt; `None` for a token that has none."""
    values, tokens = getattr(output, f"{kind}_token_logprobs_val"), getattr(output, f"{kind}_token_logprobs_idx")
    if not values or not values[place]:
        return []
    pairs = zip(values[place], tokens[place], strict=True)
    found: list[dict[int, float] | None] = [None if value is None else {token: value} for value, token in pairs]
    for name in (f"{kind}_top_logprobs", f"{kind}_token_ids_logprobs"):
        rows = getattr(output, f"{name}_val")[place], getattr(output, f"{name}_idx")[place]
        for at, (others, ids) in enumerate(zip(*(row or () for row in rows), strict=True)):  # none, if not asked for
            known = found[at]
            assert (known is None) is (others is None) is (ids is None)
            found[at] = known and known | dict(zip(ids, others, strict=True))
    return found
