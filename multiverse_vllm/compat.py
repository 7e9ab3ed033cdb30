"""What differs between the releases of vLLM that are supported, by feature tests. Nothing else asks for a release."""

from __future__ import annotations

from typing import Any

import vllm.outputs
from vllm.v1.core.sched.async_scheduler import AsyncScheduler

WEIGHT_VERSION_SPANS = hasattr(vllm.outputs, "WeightVersionSpan")
"""Since 0.32 outputs say which weights sampled which of their tokens."""

BASE_COUNTS_PLACEHOLDERS = "_update_request_with_output" not in vars(AsyncScheduler)
"""Since 0.33 the base scheduler, for which ours stands in, counts tokens under way down; before, `AsyncScheduler`."""


def skips_special_tokens(request: Any, serving: Any) -> bool:
    """Since 0.33 a request that does not say so leaves it to the defaults of the server."""
    given = request.skip_special_tokens
    return bool(serving.default_sampling_params.get("skip_special_tokens", True) if given is None else given)
