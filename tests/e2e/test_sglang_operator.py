"""SGLang's own controls and routes over HTTP while answers fork, and requests that no scheduler can read."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.models.tokenizer import turn

pytest.importorskip("sglang", reason="these are SGLang's own routes")


def post(server: str, path: str, body: Any) -> tuple[int, Any]:
    """Status and answer."""
    request = Request(server + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=120) as response:
            status, text = response.status, response.read()
    except HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode()


def answer(server: str, problem: Problem) -> str:
    body = {"text": turn(problem), "sampling_params": {"temperature": 0, "max_new_tokens": 900}}
    status, found = post(server, "/generate", body)
    assert status == 200, found
    return str(found["text"])


def test_weights_are_updated_in_the_middle_of_trees_and_answers_stay_what_they_are(
    server: str, problems: list[Problem]
) -> None:
    """The same weights, so the answers are known."""
    expected = [answer(server, problem) for problem in problems[:8]]
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(answer, server, problem) for problem in problems[:8]]
        for _ in range(4):
            time.sleep(0.4)
            assert post(server, "/pause_generation", {"mode": "retract"})[0] == 200
            status, told = post(server, "/update_weights_from_disk", {"model_path": str(TINY), "flush_cache": True})
            assert (status, told["success"]) == (200, True), told
            assert post(server, "/flush_cache", {})[0] == 200
            assert post(server, "/continue_generation", {})[0] == 200
        assert [found.result() for found in answers] == expected


def test_parameters_that_no_scheduler_can_read_are_one_requests_affair(server: str, problems: list[Problem]) -> None:
    for custom, allowed in (
        ("abc", (200, 400)),
        (["multiverse"], (200, 400)),
        ({"multiverse": "[" * 100_000}, (400, 500)),
        ({"multiverse": ["x"]}, (400,)),
        ({"multiverse": {"branch_sampling": {"repetition_penalty": 1e-30}}}, (400,)),
    ):
        body = {"text": "A", "sampling_params": {"max_new_tokens": 2, "temperature": 0, "custom_params": custom}}
        status, found = post(server, "/generate", body)
        assert status in allowed, (custom, found)
    assert answer(server, problems[1])


def test_an_offset_beyond_the_context_is_refused_when_it_is_named_or_when_it_adds_up(server: str) -> None:
    names = iter(f"program-offset{i}" for i in range(100))
    root, text = next(names), "A = sum 1"
    for offset in (1_000_000, 2**70):
        body = {"src_rid": root, "dst_rids": [next(names)], "text": text, "position_ids_offset": [offset]}
        status, found = post(server, "/fork_request", body)
        assert status == 400
        assert "positions" in found["error"]["message"]
    state = root
    for _ in range(20):
        state, source = next(names), state
        body = {"src_rid": source, "dst_rids": [state], "text": text, "position_ids_offset": [1000]}
        if post(server, "/fork_request", body)[0] == 400:
            break
        text += " 2"
        body = {"rid": state, "text": text, "sampling_params": {"temperature": 0, "max_new_tokens": 4}}
        status, found = post(server, "/generate", body)
        if status != 200:
            assert status == 400
            assert "positions" in str(found)
            break
    else:
        raise AssertionError("positions grew without bound")
    assert post(server, "/generate", {"text": "A", "sampling_params": {"max_new_tokens": 1}})[0] == 200


def test_the_route_for_messages_answers_when_a_model_forks(server: str) -> None:
    body = {"model": "tiny", "max_tokens": 900, "temperature": 0}
    body["messages"] = [{"role": "user", "content": "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."}]
    status, found = post(server, "/v1/messages", body)
    assert (status, found["type"]) == (200, "message"), found
    _, chat = post(server, "/v1/chat/completions", body)
    assert chat["usage"]["multiverse"]["branches"] > 1
    assert found["content"][0]["text"] == chat["choices"][0]["message"]["content"]
