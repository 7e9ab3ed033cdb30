"""Stops over HTTP: what a client reads of an answer that ended at one, on both hosts."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

QUESTION = "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."
KEEP = {"vllm": "include_stop_str_in_output", "sglang": "no_stop_trim"}
MATCHED = {"vllm": "stop_reason", "sglang": "matched_stop"}


def ask(server: str, **fields: Any) -> str:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": "tiny", "temperature": 0, "max_tokens": 400, "messages": messages, **fields}
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{server}/v1/chat/completions", data, headers)) as answer:
        return str(answer.read().decode())


def whole(server: str) -> str:
    return str(json.loads(ask(server))["choices"][0]["message"]["content"])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("stop", ["Answer:", "sum A"])
def test_an_answer_that_ends_at_a_stop_string_has_its_text_its_figures_and_its_tree(
    server: str, host: str, stop: str, keep: bool
) -> None:
    answer = json.loads(ask(server, stop=[stop], multiverse={"return_tree": True}, **{KEEP[host]: keep}))
    (choice,) = answer["choices"]
    text = whole(server)
    assert choice["message"]["content"] == text[: text.rindex(stop) + keep * len(stop)]
    assert (choice["finish_reason"], choice[MATCHED[host]]) == ("stop", stop)
    figures = answer["usage"]["multiverse"]
    assert figures["tokens"] == answer["usage"]["completion_tokens"]
    assert (figures["blocks"], figures["branches"]) == (1, 2)
    assert choice["multiverse"]["finish_reason"] == "stop"
    assert sum(len(strand["token_ids"]) for strand in choice["multiverse"]["tree"]) == figures["tokens"]


def test_the_text_ends_at_the_stop_string_that_ended_the_answer_not_at_one_in_a_branch(server: str, host: str) -> None:
    """The branch keeps it, as the request asks; in the conclusion the same string ends the answer."""
    answer = json.loads(ask(server, stop=[" 18"], **{KEEP[host]: True}))
    text = answer["choices"][0]["message"]["content"]
    branch, _, conclusion = text.partition("<Conclusion>")
    assert branch.count(" 18\n</Path>") + branch.count(" 18</Path>") == 1
    assert conclusion.endswith(" 18")
    assert answer["choices"][0][MATCHED[host]] == " 18"


@pytest.mark.parametrize("stop", ["Answer:", "<Goal>"])
def test_a_stream_of_events_ends_with_finish_whatever_ends_the_answer(server: str, stop: str) -> None:
    fields = {"stream": True, "stream_options": {"include_usage": True}, "multiverse": {"stream": "events"}}
    lines = ask(server, stop=[stop], **fields).splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    events = [e for c in chunks for choice in c["choices"] for e in choice.get("multiverse", {}).get("events", ())]
    assert (events[-1]["kind"], events[-1]["reason"]) == ("finish", "stop")
    (usage,) = [chunk["usage"] for chunk in chunks if not chunk["choices"]]
    assert usage["multiverse"]["tokens"] == usage["completion_tokens"] == sum(e.get("tokens", 0) for e in events)


def test_events_show_nothing_that_a_stop_string_takes_out_of_a_branch(server: str) -> None:
    fields = {"stream": True, "multiverse": {"stream": "events", "return_tree": True}}
    lines = ask(server, stop=["2 7"], **fields).splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    told = [choice["multiverse"] for chunk in chunks for choice in chunk["choices"] if "multiverse" in choice]
    events = [event for found in told for event in found.get("events", ())]
    (tree,) = [found["tree"] for found in told if "tree" in found]
    for strand in tree:
        text = "".join(event["text"] for event in events if event["kind"] == "delta" and event["key"] == strand["key"])
        assert text == "".join(strand["texts"])
    assert "2 7" not in "".join(tree[1]["texts"])
