"""Steps of SGLang's scheduler, asked for until something is so."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sglang", reason="these are SGLang's own controls")

from sglang_host import SGLangHost


def finish(host: SGLangHost, requests: list[str]) -> list[Any]:
    """The answers of `requests`, once nothing is left of anything."""
    for _ in range(4000):
        if all(map(host.finished, requests)) and not host.leftovers()["requests"]:
            host.operate("step")
            assert not any(host.leftovers().values()), host.leftovers()
            return [host.answer(request) for request in requests]
        host.operate("step")
    raise AssertionError(f"not finished: {host.leftovers()}")


def advance(host: SGLangHost, steps: int) -> None:
    for _ in range(steps):
        host.operate("step")


def until_waiting(host: SGLangHost, runs: int) -> list[str]:
    """Step until as many strands wait to be scheduled; their names."""
    for _ in range(200):
        host.operate("step")
        if len(waiting := [name for name in host.operate("waiting") if "#" in name]) >= runs:
            return waiting
    raise AssertionError("no strand ever waited")
