"""The text of an answer that ends at a stop string, in SGLang's detokenizer."""

from __future__ import annotations

from typing import Any

from multiverse_sglang.channels import FROM_END
from multiverse_sglang.registry import Original


def trim_matched_stop(
    original: Original, manager: object, output: object, finished_reason: dict[str, Any] | None, no_stop_trim: bool
) -> object:
    """Cut the text of an answer at the stop string that ended it, not at the first place where it stands."""
    if not isinstance(output, str) or not finished_reason or FROM_END not in finished_reason:
        return original(manager, output, finished_reason, no_stop_trim)
    start = max(0, len(output) - finished_reason.pop(FROM_END))
    rest: str = original(manager, output[start:], finished_reason, no_stop_trim)
    return output[:start] + rest
