"""What the plugin adds to the OpenAI API: the field `multiverse`, figures, trees, branch events. Over HTTP."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import ask, complete, templated
from openai import BadRequestError, OpenAI

from multiverse import parse_text
from multiverse.cli import main
from multiverse.models.task import Problem

FIGURES = {
    *("tokens", "critical_path_tokens", "parallel_degree", "blocks", "branches", "max_width", "depth"),
    *("injected_tokens", "recomputed_tokens", "accepted_draft_tokens", "fallbacks"),
}


def test_usage_tells_how_parallel_an_answer_was(client: OpenAI, nested: Problem) -> None:
    answer = ask(client, nested)
    figures = answer.usage.multiverse
    assert set(figures) == FIGURES
    assert figures["tokens"] == answer.usage.completion_tokens
    assert figures["parallel_degree"] == round(figures["tokens"] / figures["critical_path_tokens"], 4) > 1.2
    tree = parse_text(answer.choices[0].message.content)
    assert figures["branches"] == sum(len(block.paths) for block in tree.walk())
    assert figures["depth"] == 2
    assert "multiverse" not in (answer.choices[0].model_extra or {}), "nobody asked for the tree"


def test_an_answer_without_blocks_is_what_it_is_without_the_plugin(client: OpenAI, problems: list[Problem]) -> None:
    answer = ask(client, problems[0])
    assert "multiverse" not in (answer.usage.model_extra or {})
    assert answer.model_extra is None or "multiverse" not in answer.model_extra
    assert answer.model_extra is None or answer.model_extra.get("kv_transfer_params") is None


def test_the_tree_comes_on_demand_and_adds_up(client: OpenAI, nested: Problem) -> None:
    answer = ask(client, nested, {"return_tree": True}, logprobs=True, top_logprobs=1)
    record = answer.choices[0].multiverse
    assert sum(len(strand["token_ids"]) for strand in record["tree"]) == answer.usage.completion_tokens
    assert {strand["finish_reason"] for strand in record["tree"][1:]} == {"path_close"}
    assert all(len(strand["logprobs"]) == len(strand["token_ids"]) for strand in record["tree"])
    texts = {tuple(strand["key"]): strand["texts"] for strand in record["tree"]}
    assert answer.choices[0].message.content.startswith(texts[()][0] + texts[0, 0][0])
    assert all(len(strand["texts"]) == len(strand["forks"]) + 1 for strand in record["tree"])
    assert all(0 <= strand["started"] < strand["closed"] <= record["tree"][0]["closed"] for strand in record["tree"])
    assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens


def test_a_disabled_request_decodes_sequentially_and_says_the_same(client: OpenAI, problems: list[Problem]) -> None:
    parallel, plain = ask(client, problems[1]), ask(client, problems[1], {"enabled": False})
    assert (
        plain.choices[0].message.content.rsplit("Answer:")[1]
        == parallel.choices[0].message.content.rsplit("Answer:")[1]
    )
    assert "multiverse" not in (plain.usage.model_extra or {})


def test_caps_of_a_request_hold_for_it_alone(client: OpenAI, problems: list[Problem]) -> None:
    narrow = ask(client, problems[1], {"max_branches": 1})
    assert narrow.usage.multiverse["fallbacks"] == {"too_wide": 1}
    assert narrow.usage.multiverse["branches"] == 0
    assert ask(client, problems[1]).usage.multiverse["fallbacks"] == {}


@pytest.mark.parametrize(("cut", "differ"), [({}, True), ({"min_p": 1.0}, False), ({"top_k": 1}, False)])
def test_what_branches_sample_with_can_differ_from_the_rest(
    client: OpenAI, problems: list[Problem], cut: dict[str, float], differ: bool
) -> None:
    """Hot branches of a greedy request differ from seed to seed; what comes before the fork does not."""
    hot = {"branch_sampling": {"temperature": 2.0} | cut, "return_tree": True}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: ask(client, problems[1], hot, seed=seed, max_tokens=400), range(8)))
    trees = [answer.choices[0].multiverse["tree"] for answer in answers]
    before = {tuple(tree[0]["token_ids"][: tree[0]["forks"][0]]) for tree in trees}
    branches = {tuple(tuple(strand["token_ids"]) for strand in tree[1:]) for tree in trees}
    assert len(before) == 1
    assert (len(branches) > 1) is differ


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        ({"max_branches": 0}, "max_branches must be an integer >= 1, got 0"),
        ({"max_depth": 9}, "max_depth must be at most 4 on this server, got 9"),
        ({"structure": "loose"}, "structure must be 'lenient' or 'strict', got 'loose'"),
        ({"stream": "sse"}, "stream must be 'document' or 'events', got 'sse'"),
        ({"branch_sampling": {"typical_p": 1}}, "branch_sampling has no 'typical_p'; it has temperature"),
        ({"branch_sampling": {"top_k": 1.5}}, "branch_sampling: top_k must be an integer, got 1.5"),
        ({"branch_sampling": {"temperature": -1}}, "branch_sampling: temperature must be "),
        ({"branch_sampling": {"top_p": "all"}}, "branch_sampling: top_p must be a number, got 'all'"),
        ({"return_tree": 1}, "return_tree must be true or false, got 1"),
        ({"widht": 3}, "multiverse has no 'widht'; it has enabled"),
        ([], "multiverse must be an object, got list"),
    ],
)
def test_a_wrong_field_is_a_400_that_says_what_is_allowed(
    client: OpenAI, problems: list[Problem], field: Any, complaint: str, stream: bool
) -> None:
    for send in (
        lambda: ask(client, problems[0], field, stream=stream),
        lambda: complete(client, "Find A.", field, stream=stream),
    ):
        with pytest.raises(BadRequestError) as refused:
            send()
        assert complaint in str(refused.value)
    assert ask(client, problems[0], max_tokens=3).choices[0].finish_reason == "length"


def test_blocks_and_structured_outputs_together_are_refused(client: OpenAI, problems: list[Problem]) -> None:
    with pytest.raises(BadRequestError, match="structured outputs constrain one sequence"):
        ask(client, problems[0], {}, response_format={"type": "json_object"})


def test_completions_have_the_same_fields_for_every_choice(client: OpenAI, problems: list[Problem]) -> None:
    prompts = [templated(problem) for problem in problems[:3]]
    answer = complete(client, prompts, {"return_tree": True}, n=2, temperature=0.01, seed=1)
    trees = [choice.multiverse for choice in answer.choices]
    counted = [sum(len(strand["token_ids"]) for strand in record["tree"]) for record in trees]
    assert len(counted) == 6
    assert sum(counted) == answer.usage.completion_tokens == answer.usage.multiverse["tokens"]
    assert [len(record["tree"]) > 1 for record in trees] == [False, False, True, True, True, True]
    stream = complete(
        client, prompts, {"return_tree": True, "stream": "events"}, n=2, temperature=0.01, seed=1, stream=True
    )
    heard: dict[int, int] = {}
    for chunk in stream:
        for choice in chunk.choices:
            for event in (choice.model_extra or {}).get("multiverse", {}).get("events", ()):
                heard[choice.index] = heard.get(choice.index, 0) + event.get("tokens", 0)
    assert [heard[index] for index in range(6)] == counted


def test_raw_json_without_any_client_library_works(server: str, nested: Problem) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": nested.prompt}], "max_tokens": 900}
    body |= {"temperature": 0, "multiverse": {"return_tree": True}}
    request = urllib.request.Request(
        f"{server}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    assert set(answer["usage"]["multiverse"]) == FIGURES
    assert answer["choices"][0]["multiverse"]["tree"][0]["key"] == []
    assert answer.get("kv_transfer_params") is None


def test_the_demo_shows_branches_side_by_side_and_both_ways_of_decoding_and_draws_a_page(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = tmp_path / "demo.html"
    assert main(["demo", "--url", server, "-o", str(page)]) == 0
    output = capsys.readouterr().out
    assert f"6 branches are drawn in {page.as_uri()}" in output
    assert re.search(r'"closed": \d', page.read_text(encoding="utf-8")), "the page has no times"
    assert re.search(r"branch 1 .*branch 2 ", output)
    assert max(map(len, output.split(" branches are drawn")[0].splitlines())) <= 80
    assert "4 of 4 answers are right" in output
    degrees = [
        float(degree) for degree in re.findall(r"^→ right, parallel degree (\S+) .* times as fast$", output, re.M)
    ]
    assert sum(degree > 1.5 for degree in degrees) == 3
    assert len(degrees) == 4
    assert "without branches:" not in output, "the same answers in as many tokens"


def test_metrics_count_what_was_answered(client: OpenAI, host: str, server: str, problems: list[Problem]) -> None:
    before = scraped(server)
    answer = ask(client, problems[2])
    ask(client, problems[1], {"max_branches": 1})
    until, figures = time.monotonic() + 10, answer.usage.multiverse
    while time.monotonic() < until:
        after = scraped(server)
        added = {name: after[name] - before[name] for name in after}
        if added["block_width_count"] and not after["parked_sequences"]:
            break
        time.sleep(0.2)
    assert added["forks_total"] == added["joins_total"] == added["block_width_count"] == figures["blocks"]
    assert added["block_width_sum"] == figures["branches"]
    assert added["fork_seconds_count"] == added["join_seconds_count"] == figures["blocks"]
    assert added["parallel_degree_sum"] == pytest.approx(figures["parallel_degree"])
    assert added["fallbacks_total"] == 1
    assert added["moved_tokens_total"] < added["spliced_tokens_total"]
    assert (added["moved_tokens_total"] > 0) is (host == "vllm"), "pages of one token are never moved"
    assert (after["running_branches"], after["parked_sequences"]) == (0, 0)


def scraped(server: str) -> dict[str, float]:
    """The plugin's metrics by name, summed over labels."""
    text = urllib.request.urlopen(f"{server}/metrics", timeout=10).read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("multiverse:"):
            name, value = line.split("{")[0].removeprefix("multiverse:"), line.rsplit(" ", 1)[1]
            found[name] = found.get(name, 0) + float(value)
    return found
