"""The text of an answer that ends at a stop string, in SGLang's detokenizer."""

from __future__ import annotations

from typing import Any

from multiverse_sglang.channels import FROM_END


def trim_matched_stop(original: Any, manager: Any, output: Any, finished_reason: Any, no_stop_trim: bool) -> Any:
    """Cut the text of an answer at the stop string that ended it, not at the first place where it stands."""
    if not isinstance(output, str) or not finished_reason or FROM_END not in finished_reason:
        return original(manager, output, finished_reason, no_stop_trim)
    start = max(0, len(output) - finished_reason.pop(FROM_END))
    return output[:start] + original(manager, output[start:], finished_reason, no_stop_trim)
