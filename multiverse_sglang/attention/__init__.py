"""`--attention-backend multiverse`, in SGLang's registry of attention backends, and what it may be put around."""

from __future__ import annotations

from functools import partial

from multiverse_sglang.host import ModelRunner

NAME = "multiverse"
"""On a CPU a backend of our own, elsewhere SGLang's Triton backend with our steps."""
AROUND = {f"{NAME}-{name}": name for name in ("triton", "fa3", "flashinfer")}
"""SGLang's own backends that are offered with our decode steps, by the name to choose."""


def offer() -> None:
    """Let SGLang choose the backends by their names."""
    from sglang.srt.arg_groups.choices import ATTENTION_BACKEND_CHOICES, add_attention_backend_choices
    from sglang.srt.layers.attention.attention_registry import register_attention_backend

    for name in (NAME, *AROUND):
        register_attention_backend(name)(partial(_make, name))
        if name not in ATTENTION_BACKEND_CHOICES:
            add_attention_backend_choices([name])


def _make(name: str, runner: ModelRunner) -> object:
    if name == NAME and runner.device == "cpu":
        from multiverse_sglang.attention.backend import SharedPrefixBackend

        return SharedPrefixBackend(runner)
    from multiverse_sglang.attention.around import put_around

    return put_around(AROUND.get(name, "triton"), runner)
