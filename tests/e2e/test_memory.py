"""What a server says to clients when its KV cache is far too small. It has 14 blocks of 32 tokens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from servers import Servers

from multiverse import get_dialect

pytest.importorskip("vllm", reason="the sizes are vLLM's; how SGLang runs out is in the conformance suite")

CLOSED = "</Path>"
TAGS = "".join(get_dialect("multiverse").tags.values())
BEGINNING = "<|im_start|>user\nA = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def server(servers: Servers) -> str:
    tight = ["--max-model-len", "448", "--num-gpu-blocks-override", "15"]
    return servers(*tight, "--multiverse-shapes", "accept")


def asked(server: str, width: int, stream: bool) -> httpx.Response:
    """Ask for branches that never close by themselves."""
    outlines = "".join(f"<Outline>\n{i}: A {i - 1}\n</Outline>\n" for i in range(1, width + 1))
    close = httpx.post(f"{server}/tokenize", json={"model": "tiny", "prompt": CLOSED}).json()["tokens"][0]
    body: dict[str, Any] = {
        "model": "tiny",
        "prompt": f"{BEGINNING}<Parallel>\n<Goal>\n{outlines}</Goal>\n",
        "max_tokens": 405 - 11 * width,
        "temperature": 1.0,
        "seed": 1,
        "ignore_eos": True,
        "logit_bias": {str(close): -100},
        "stream": stream,
    }
    return httpx.post(f"{server}/v1/completions", json=body, timeout=120)


def assert_alive(server: str) -> None:
    body = {"model": "tiny", "prompt": BEGINNING, "max_tokens": 200, "temperature": 0}
    answer = httpx.post(f"{server}/v1/completions", json=body, timeout=120)
    assert answer.json()["choices"][0]["text"].endswith("Answer: 27")
    assert answer.json()["usage"]["multiverse"]["branches"] == 2


def test_a_block_that_the_cache_could_never_hold_is_not_forked(server: str) -> None:
    answer = asked(server, 16, stream=False)
    assert answer.status_code == 200
    assert answer.json()["usage"]["multiverse"]["fallbacks"]["kv_capacity"] == 1  # what is sampled may have stray tags
    assert_alive(server)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_outgrows_the_cache_ends_with_an_error_and_only_that_one(server: str, stream: bool) -> None:
    """Six branches that end in their third block have to be there together at the join."""
    tags = httpx.post(f"{server}/tokenize", json={"model": "tiny", "prompt": TAGS}).json()["tokens"]
    body: dict[str, Any] = {
        "model": "tiny",
        "prompt": BEGINNING,
        "max_tokens": 390,
        "ignore_eos": True,
        "logit_bias": {str(tag): -100 for tag in tags},
        "stream": stream,
        "multiverse": {"shape": [4, [[40]] * 6, 4]},
    }
    answer = httpx.post(f"{server}/v1/completions", json=body, timeout=120)
    if stream:
        assert '"error"' in answer.text
        assert '"code": 500' in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "InternalServerError"
    assert_alive(server)
