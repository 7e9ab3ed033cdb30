"""Makes the host that is installed here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from answer import Host


def make_host(
    model: str,
    blocks: int | None = None,
    late: bool = False,
    page: int = 1,
    settings: dict[str, Any] | None = None,
    **options: str,
) -> Host:
    if find_spec("vllm") is not None:
        from vllm_host import VLLMHost

        return VLLMHost(model, blocks, late, settings, **options)
    if find_spec("sglang") is not None:
        from sglang_host import SGLangHost

        return SGLangHost(model, blocks, late, {"page_size": page} | (settings or {}), **options)
    raise RuntimeError("no host is installed here: run this suite with the Python of .venvs/vllm or .venvs/sglang")
