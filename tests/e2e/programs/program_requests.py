"""What the states of an `sgl.function` program send to a server, one request a function."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

POOL = 2400
"""Tokens of KV that the server has."""


def computed(server: str) -> int:
    """How many tokens of prompts the server has computed so far."""
    name = 'sglang:realtime_tokens_total{engine_type="unified",mode="prefill_compute"'
    text = urllib.request.urlopen(f"{server}/metrics", timeout=10).read().decode()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if line.startswith(name))


def post(server: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(server + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["message"]


def commit(server: str, name: str, text: str, tokens: int = 0) -> tuple[int, Any]:
    """A request of the state `name`."""
    parameters = {"max_new_tokens": tokens, "temperature": 0}
    logprobs = {"return_logprob": True, "top_logprobs_num": 8}
    return post(server, "/generate", {"rid": name, "text": text, "sampling_params": parameters} | logprobs)


def fork(server: str, name: str, text: str, branches: list[str]) -> list[str]:
    """Fork the state `name` and let each branch compute a text of its own. Returns their names."""
    names = [f"{name}-{number}" for number in range(len(branches))]
    assert post(server, "/fork_request", {"src_rid": name, "dst_rids": names, "text": text}) == (200, {"success": True})
    for branch, own in zip(names, branches, strict=True):
        assert commit(server, branch, text + own)[0] == 200
    return names


def join(server: str, name: str, branches: list[str]) -> tuple[int, Any]:
    return post(server, "/concate_and_append_request", {"src_rids": branches, "dst_rid": name})
