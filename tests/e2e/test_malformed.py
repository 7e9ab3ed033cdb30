"""Malformed values over HTTP: every field, every kind of wrong value, every API. Each is a 400 that names the field in
few words, nothing reaches the engine, and whoever asks afterwards is answered as before."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from multiverse.serving.field import BRANCH_SAMPLING
from multiverse.serving.options import _REQUEST_FIELDS

pytestmark = pytest.mark.usefixtures("control")

QUESTION = "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."
CHAT = {"model": "tiny", "temperature": 0, "messages": [{"role": "user", "content": QUESTION}]}
CONTROL = {**CHAT, "max_tokens": 400}
PLAIN = {"model": "tiny", "temperature": 0, "prompt": "Find A."}
BODIES: dict[str, dict[str, Any]] = {"/v1/chat/completions": CHAT, "/v1/completions": PLAIN}
ADDRESSES = {"vllm": BODIES, "sglang": BODIES | {"/generate": {"text": "Find A."}}}
LONGEST = 1500
"""Bytes of a 400."""


def nested(levels: int) -> Any:
    return functools.reduce(lambda inner, _: [inner], range(levels), 1)


WRONG: dict[str, Any] = {
    "text": "wrong",
    "a megabyte": "x" * 1_000_000,
    "surrogate": "\ud800",
    "list": ["wrong"],
    "long list": [None] * 100_000,
    "object": {"wrong": 1},
    "fraction": 1.5,
    "negative": -1,
    "65 bits": 2**64,
    "4,000 digits": 10**4000,
    "not a number": math.nan,
    "infinite": math.inf,
    "nested": nested(200),
}
"""Wrong for every field."""


def outside(name: str) -> Iterator[Any]:
    least, most = BRANCH_SAMPLING[name]
    yield from (math.nextafter(least, -math.inf), math.nextafter(most, math.inf))
    yield from (math.nan, math.inf, -math.inf, 10**400, -(10**400), "x" * 100_000, None, True, [1.0], nested(30))


def wrong_fields() -> Iterator[tuple[str, Any]]:
    """What has to be named, and the field."""
    for name, (kind, value) in itertools.product(_REQUEST_FIELDS, WRONG.items()):
        yield "multiverse" if kind == "nested" else name, {name: value}
    for name in BRANCH_SAMPLING:
        for value in outside(name):
            yield name, {"branch_sampling": {name: value}}
    for value in (*WRONG.values(), "[" * 100_000, '{"shape":' * 5000, "{", json.dumps({"wrong": 1})):
        yield "multiverse", value
    yield "multiverse", {str(number): 1 for number in range(20_000)}


def post(server: str, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{server}{path}", content=content, headers={"Content-Type": "application/json"}, timeout=120)


def refused(server: str, path: str, body: Any, named: str) -> str:
    """What a client is told of a wrong request; how it is told is checked."""
    answer = post(server, path, body)
    what = f"{path} {str(body)[:200]} -> {answer.status_code} {answer.text[:200]}"
    assert answer.status_code == 400, what
    assert len(answer.content) <= LONGEST, what
    told = answer.json()
    message = str((told.get("error") or told)["message"])
    assert named in message, what
    return message


@pytest.fixture(scope="module")
def control(server: str) -> Iterator[Callable[[], str]]:
    """Asks a question that forks, whose answer never changes; asked before and after the tests of this file, too."""

    def answer() -> tuple[str, dict[str, Any]]:
        said = post(server, "/v1/chat/completions", CONTROL).json()
        return said["choices"][0]["message"]["content"], said["usage"]["multiverse"]

    def check() -> str:
        assert answer() == before
        return before[0]

    before = answer()
    assert before[0].endswith("Answer: 27")
    assert before[1]["branches"] == 2
    yield check
    check()


@pytest.mark.parametrize("name", [*_REQUEST_FIELDS, *BRANCH_SAMPLING, "multiverse"])
def test_a_wrong_value_is_a_400_that_names_its_field_in_few_words(
    server: str, host: str, control: Callable[[], str], name: str
) -> None:
    fields = [field for named, field in wrong_fields() if named == name]
    assert len(fields) >= 10
    streams = itertools.cycle([True, False])
    for field in fields:
        for path, body in ADDRESSES[host].items():
            refused(server, path, {**body, "stream": next(streams), "multiverse": field}, name)
    control()


def test_a_key_that_is_written_with_an_escape_is_the_same_key(server: str, host: str) -> None:
    for path, body in ADDRESSES[host].items():
        for key in ('"\\u006dultiverse"', '"multivers\\u0065"'):
            refused(server, path, json.dumps({**body, "KEY": {"widht": 1}}).replace('"KEY"', key).encode(), "'widht'")
    body = json.dumps({**CONTROL, "KEY": {"return_tree": True}}).replace('"KEY"', '"multi\\u0076erse"').encode()
    assert len(post(server, "/v1/chat/completions", body).json()["choices"][0]["multiverse"]["tree"]) == 3


@pytest.mark.parametrize("levels", [1_000, 5_000, 100_000])
def test_a_body_that_is_nested_without_end_is_a_400(
    server: str, host: str, control: Callable[[], str], levels: int
) -> None:
    for path, body in ADDRESSES[host].items():
        for key in ("multiverse", "other"):
            told = json.dumps({**body, "multiverse": {}, "other": 1, key: "DEEP"})
            answer = post(server, path, told.replace('"DEEP"', "[" * levels + "]" * levels).encode())
            assert answer.status_code == 400, (path, key, answer.text[:200])
            assert len(answer.content) <= LONGEST
    control()


def test_a_null_field_asks_for_nothing(server: str, host: str) -> None:
    for path, body in ADDRESSES[host].items():
        assert post(server, path, {**body, "multiverse": None}).status_code == 200


ELSEWHERE: dict[str, dict[str, Any]] = {
    "/v1/messages": {**CHAT, "max_tokens": 8},
    "/v1/responses": {"model": "tiny", "input": QUESTION, "max_output_tokens": 8},
}


@pytest.mark.parametrize("path", ELSEWHERE)
def test_other_apis_refuse_the_field(server: str, control: Callable[[], str], path: str) -> None:
    for field in ({"widht": 1}, {"return_tree": True}, {"enabled": False}):
        told = refused(server, path, {**ELSEWHERE[path], "multiverse": field}, "multiverse")
        assert "/v1/chat/completions" in told
    control()


class TestVllm:
    """What only vLLM has."""

    @pytest.fixture(autouse=True)
    def _host(self, host: str) -> None:
        if host != "vllm":
            pytest.skip("this server belongs to vLLM's environment")

    @pytest.mark.parametrize("path", BODIES)
    def test_beam_search_refuses_the_field(self, server: str, path: str) -> None:
        body = {**BODIES[path], "use_beam_search": True, "n": 2, "max_tokens": 4}
        refused(server, path, {**body, "multiverse": {"return_tree": True}}, "beam search")
        refused(server, path, {**body, "multiverse": {"widht": 1}}, "'widht'")
        for field in ({}, {"multiverse": {"enabled": False}}):
            assert len(post(server, path, {**body, **field}).json()["choices"]) == 2

    def test_steps_of_beam_search_are_decoded_plainly(self, server: str, control: Callable[[], str]) -> None:
        """A beam over text with a block, which was not forked for it, is what a plain request says."""
        block = control().split("Answer")[0]
        prompt = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{block}"
        body = {**PLAIN, "prompt": prompt, "max_tokens": 1, "logprobs": 2}

        def scores(more: dict[str, Any]) -> list[float]:
            choice = post(server, "/v1/completions", {**body, **more}).json()["choices"][0]
            return sorted(choice["logprobs"]["top_logprobs"][0].values())[-2:]

        plain = scores({"multiverse": {"enabled": False}})
        assert scores({"use_beam_search": True, "n": 1}) == pytest.approx(plain, abs=1e-4)
        assert scores({}) != pytest.approx(plain, abs=1e-4), "laid out, the same text says something else"

    def test_the_field_in_extra_arguments_is_checked_too(self, server: str) -> None:
        for path, body in BODIES.items():
            extra = {"multiverse": json.dumps({"max_parallel": 2**64})}
            refused(server, path, {**body, "vllm_xargs": extra}, "max_parallel")

    def test_other_apis_answer_without_the_field(self, server: str) -> None:
        for path, body in ELSEWHERE.items():
            assert post(server, path, body).status_code == 200, path


class TestSglang:
    """What only SGLang has: `custom_params`, by which the field travels."""

    @pytest.fixture(autouse=True)
    def _host(self, host: str) -> None:
        if host != "sglang":
            pytest.skip("this server belongs to SGLang's environment")

    @pytest.mark.parametrize("wrong", ["abc", "", ["multiverse"], 5, True, "x" * 1_000_000], ids=lambda v: str(v)[:9])
    def test_custom_params_that_are_no_object(self, server: str, control: Callable[[], str], wrong: Any) -> None:
        for field, stream in itertools.product(({}, {"multiverse": {}}), (True, False)):
            for path, body in BODIES.items():
                refused(server, path, {**body, **field, "stream": stream, "custom_params": wrong}, "custom_params")
            sampling = {"max_new_tokens": 8, "custom_params": wrong}
            for given in (sampling, [sampling]):
                body = {"text": "x" if given is sampling else ["x"], "stream": stream, "sampling_params": given}
                refused(server, "/generate", {**body, **field}, "custom_params")
        control()

    def test_the_field_in_custom_params_is_checked_in_the_front_end(
        self, server: str, control: Callable[[], str]
    ) -> None:
        for stream, (name, field) in zip(itertools.cycle([True, False]), wrong_fields(), strict=False):
            for path, body in BODIES.items():
                refused(server, path, {**body, "stream": stream, "custom_params": {"multiverse": field}}, name)
            parameters = {"sampling_params": {"custom_params": {"multiverse": field}}}
            refused(server, "/generate", {"text": "x", "stream": stream, **parameters}, name)
        control()

    def test_integers_are_told_as_they_were_sent(self, server: str) -> None:
        parameters = {"sampling_params": {"custom_params": {"multiverse": {"max_parallel": 2**70}}}}
        assert str(2**70) in refused(server, "/generate", {"text": "x", **parameters}, "max_parallel")

    @pytest.mark.parametrize("wrong", ["abc", 5, ["json"], True], ids=str)
    def test_other_fields_of_a_wrong_type_beside_the_field(self, server: str, wrong: Any) -> None:
        refused(server, "/generate", {"text": "x", "sampling_params": wrong, "multiverse": {}}, "sampling_params")
        for path, body in BODIES.items():
            refused(server, path, {**body, "response_format": wrong, "multiverse": {}}, "response_format")

    def test_without_the_field_they_are_no_server_error_of_ours(self, server: str, control: Callable[[], str]) -> None:
        for wrong in ("abc", 5, ["x"]):
            refused(server, "/generate", {"text": "x", "sampling_params": wrong, "stream": False}, "")
        control()
