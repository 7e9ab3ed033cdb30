"""The mix of all documented fields: every one is drawn, a seed tells it, and a program repeats it."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from multiverse.serving.field import SLO, check_slo
from multiverse.serving.options import _REQUEST_FIELDS
from multiverse.stress.asks import Ask
from multiverse.stress.fields import CHAT, COMPLETION, GENERATE, HOST_FIELDS, NESTED, OUR_FIELDS, encode
from multiverse.stress.mix import Surface, has_grammar, may_leave_nothing
from multiverse.stress.script import script


def surface(host: str) -> Surface:
    return Surface(host, "tiny", ["one?", "two?"], ["three", "four"], 100)


def drawn(host: str, number: int = 3000) -> list[Ask]:
    return [surface(host).draw(Random(f"{host} {i}")) for i in range(number)]


@pytest.mark.parametrize("host", ["vllm", "sglang"])
def test_every_field_and_every_api_is_drawn(host: str) -> None:
    asks = drawn(host)
    assert {ask.path for ask in asks} == {CHAT, COMPLETION} | ({GENERATE} if host == "sglang" else set())
    assert {name for ask in asks for name in ask.body} >= {f.name for f in HOST_FIELDS if host in f.hosts}
    ours = {name for ask in asks if isinstance(ask.body.get("multiverse"), dict) for name in ask.body["multiverse"]}
    assert ours >= {field.name for field in OUR_FIELDS}


@pytest.mark.parametrize("host", ["vllm", "sglang"])
def test_promises_are_drawn_only_where_a_server_takes_them(host: str) -> None:
    def asked(surface: Surface) -> list[Any]:
        asks = [surface.draw(Random(f"{host} {i}")) for i in range(1000)]
        ours = [ask.body["multiverse"] for ask in asks if not ask.must_be_refused and "multiverse" in ask.body]
        return [field["slo"] for field in ours if isinstance(field, dict) and "slo" in field]

    assert not asked(surface(host))
    promises = asked(replace(surface(host), promises=True))
    assert len(promises) > 100
    assert {name for each in promises for name in each} == set(SLO)
    for each in promises:
        check_slo(each)


def test_our_fields_are_those_that_requests_have() -> None:
    assert {field.name for field in OUR_FIELDS} == set(_REQUEST_FIELDS) - {"structure", "shape", "slo"}


@pytest.mark.parametrize("host", ["vllm", "sglang"])
def test_grammars_are_drawn_beside_what_forbids_their_tokens_and_only_these_may_fail(host: str) -> None:
    grammars, forbidding = {"response_format", "structured_outputs", "regex"}, {"min_tokens", "min_new_tokens"}
    asks = drawn(host)
    may_fail = [ask for ask in asks if ask.may_fail]
    assert 10 < len(may_fail) < len(asks) / 10
    fields = [ask.body.keys() | ask.body.get("sampling_params", {}).keys() for ask in may_fail]
    assert all(found & grammars for found in fields)
    assert any(found & forbidding for found in fields)
    assert {"ignore_eos", "logit_bias"} <= set().union(*fields)


def test_a_format_that_is_text_forbids_nothing() -> None:
    assert may_leave_nothing({"response_format": {"type": "json_object"}, "min_tokens": 4})
    assert may_leave_nothing({"sampling_params": {"regex": "[0-9]", "ignore_eos": True}})
    assert not may_leave_nothing({"response_format": {"type": "text"}, "min_tokens": 4})
    assert not may_leave_nothing({"sampling_params": {"regex": "[0-9]"}, "stream": True})
    assert has_grammar({"sampling_params": {"regex": "[0-9]"}})
    assert not has_grammar({"response_format": {"type": "text"}})


def test_a_seed_tells_a_request() -> None:
    assert drawn("vllm", 50) == drawn("vllm", 50)


def test_some_have_wrong_values_and_some_of_these_must_be_refused() -> None:
    wrong = [ask for ask in drawn("sglang") if ask.kind == "wrong"]
    assert 0.05 < len(wrong) / 3000 < 0.2
    assert 0 < sum(ask.must_be_refused for ask in wrong) < len(wrong)
    assert all(ask.leaves is None for ask in wrong), "a client that waits for no answer can't tell"


def test_what_no_encoder_writes_is_sent_all_the_same() -> None:
    text = encode({"a": NESTED})
    assert text == '{"a": ' + "[" * 1500 + "]" * 1500 + "}"


def test_a_program_repeats_a_mix() -> None:
    asks = [Ask("mixed", {"prompt": "a \"b\" 'c'\n", "multiverse": {"max_depth": NESTED}}, path=COMPLETION)]
    tree = ast.parse(script("vllm, step by step", 'a "quoted" problem\nand more', asks))
    sent = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and "ASKS" in ast.dump(node.targets[0])
    )
    ((path, body),) = sent
    assert path == COMPLETION
    assert body == encode(asks[0].body)
    assert json.loads(body.replace("[" * 1500 + "]" * 1500, "1"))["prompt"] == "a \"b\" 'c'\n"
