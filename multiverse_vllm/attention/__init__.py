"""Attention backends of vLLM with decode steps of ours, in vLLM's registry under their own names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multiverse.serving.options import Options
from multiverse.serving.sharing import NEVER

if TYPE_CHECKING:
    from multiverse_vllm.attention.steps import SharedPrefixSteps

OURS = {
    "FLASH_ATTN": "multiverse_vllm.attention.flash.SharedPrefixFlashBackend",
    "TRITON_ATTN": "multiverse_vllm.attention.triton.SharedPrefixTritonBackend",
}
"""By the name of the backend that each stands in for. vLLM chooses as ever, `--attention-backend` included."""


def is_wanted() -> bool:
    """Whether the server was asked to read what branches share once (`--multiverse-shared-prefix`)."""
    return Options.from_environment().shared_prefix not in (None, NEVER)


def offer() -> None:
    """Let vLLM find ours where it looks for its own, if that is wanted."""
    if is_wanted():
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

        for name, path in OURS.items():
            register_backend(AttentionBackendEnum[name], path)


def steps_of(runner: Any) -> SharedPrefixSteps | None:
    """What decides about the steps of `runner`, whose KV cache was just made; None if that is not wanted."""
    if not is_wanted():
        return None
    from multiverse_vllm.attention.around import put_around

    return put_around(runner)
