"""`--attention-backend multiverse`, in SGLang's registry of attention backends."""

from __future__ import annotations

from multiverse_sglang.host import ModelRunner

NAME = "multiverse"


def offer() -> None:
    """Let SGLang choose the backend by its name."""
    from sglang.srt.arg_groups.choices import ATTENTION_BACKEND_CHOICES, add_attention_backend_choices
    from sglang.srt.layers.attention.attention_registry import register_attention_backend

    register_attention_backend(NAME)(_make)
    if NAME not in ATTENTION_BACKEND_CHOICES:
        add_attention_backend_choices([NAME])


def _make(runner: ModelRunner) -> object:
    from multiverse_sglang.attention.backend import SharedPrefixBackend

    return SharedPrefixBackend(runner)
