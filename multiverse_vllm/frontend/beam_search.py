"""Beam search on vLLM: each step asks for one token behind several texts, which are decoded plainly.

A text that has reached a conclusion was not forked, so its next step must not lay it out as if it had been.
"""

from __future__ import annotations

import functools
from types import ModuleType

from multiverse_vllm.channels import OPTIONS


def install(module: ModuleType) -> None:
    """Let the requests that `module` makes for its beams be plain ones. Idempotent."""
    if not isinstance(module.SamplingParams, functools.partial):
        module.SamplingParams = functools.partial(module.SamplingParams, extra_args={OPTIONS: {"enabled": False}})  # type: ignore[attr-defined]
