"""Makes the host that is installed here, and keeps what was made."""

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


class Engines:
    """The engines of a test session: whoever asks for the same settings gets the same one. Arguments as `make_host`."""

    def __init__(self) -> None:
        self._made: dict[str, Host] = {}
        self._kept: set[str] = set()

    def made(self) -> list[Host]:
        return list(self._made.values())

    def __call__(self, model: str, **settings: Any) -> Host:
        """One that is there until the module ends that asked for it."""
        key = repr((model, sorted(settings.items())))
        if key not in self._made:
            self._made[key] = make_host(model, **settings)
        return self._made[key]

    def keep(self, model: str, **settings: Any) -> Host:
        """One that is there until the session ends."""
        self._kept.add(repr((model, sorted(settings.items()))))
        return self(model, **settings)

    def end_others(self) -> None:
        """End those that nobody keeps and that are processes of their own: each takes half a GB."""
        for key in self._made.keys() - self._kept:
            if hasattr(self._made[key], "close"):
                self._made.pop(key).close()  # type: ignore[attr-defined]
