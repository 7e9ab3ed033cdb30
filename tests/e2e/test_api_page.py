"""docs/api.md over HTTP: its request works, its answers are what comes, and each of its errors is provoked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
REQUEST: dict[str, Any] = json.loads(re.search(r"-d '(\{.+?\})'\n", PAGE, re.S)[1])  # type: ignore[index]
ERRORS = re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", PAGE.split("## Errors", 1)[1], re.M)


def example(name: str) -> Any:
    return json.loads(re.search(rf"<!-- {name} -->\n```json\n(.+?)```", PAGE, re.S)[1])  # type: ignore[index]


def post(server: str, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
    return httpx.post(f"{server}{path}", json=body, timeout=120)


def test_the_example_is_answered_as_the_page_says(server: str) -> None:
    answer = post(server, REQUEST).json()
    shown = example("usage")
    assert {name: answer["usage"][name] for name in shown} == shown
    (strand,) = [each for each in answer["choices"][0]["multiverse"]["tree"] if each["key"] == [0, 1]]
    shown = example("strand")
    assert set(strand) == {*shown, "logprobs"}
    assert len(strand["logprobs"]) == len(strand["token_ids"])
    timed = {"started", "closed"}
    assert {name: strand[name] for name in shown if name not in timed} == {n: shown[n] for n in shown if n not in timed}


def test_the_events_of_the_page_come_in_its_order(server: str) -> None:
    body = {**REQUEST, "stream": True, "multiverse": {"stream": "events"}}
    lines = [line.removeprefix("data: ") for line in post(server, body).text.splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    events = [event for choice in choices for event in choice.get("multiverse", {}).get("events", ())]
    places = [events.index(event) for event in example("events")]
    assert places == sorted(places)


def test_the_page_has_many_errors() -> None:
    assert len(ERRORS) >= 19


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("field", "message"), ERRORS, ids=[field for field, _ in ERRORS])
def test_every_error_is_a_400_with_its_message_and_the_next_request_is_answered(
    server: str, field: str, message: str, stream: bool
) -> None:
    body = {**REQUEST, "multiverse": json.loads(field), "stream": stream}
    refused = post(server, body)
    assert refused.status_code == 400
    error = refused.json()
    assert (error.get("error") or error)["message"].startswith(message)
    plain = {"model": REQUEST["model"], "prompt": "Find A.", "max_tokens": 2, "multiverse": json.loads(field)}
    assert post(server, plain, "/v1/completions").status_code == 400
    assert post(server, {**REQUEST, "max_tokens": 3}).status_code == 200


def test_structured_outputs_and_blocks_together_are_refused(server: str) -> None:
    refused = post(server, {**REQUEST, "response_format": {"type": "json_object"}})
    assert refused.status_code == 400
    assert "structured outputs constrain one sequence, blocks make several" in refused.text
    assert post(server, {**REQUEST, "max_tokens": 3}).status_code == 200
