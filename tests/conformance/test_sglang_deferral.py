"""Who samples no tag is SGLang's alone, and who is enrolled late ends as if it had been watched from its beginning."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

pytest.importorskip("sglang", reason="these are classes of SGLang's requests")

from sglang_host import SGLangHost

from multiverse.models.task import generate
from multiverse.models.tokenizer import turn

KINDS = ("flat", "nested", "chain", "single", "flat", "nested")
WATCHED = {"max_critical_path": 100_000}
"""A limit that no answer reaches, and that has to be watched."""


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    rng = Random(29)
    return [tiny[1].encode(turn(generate(rng, kind, held_out=True))) for kind in KINDS]


def kinds_until_forked(host: SGLangHost, prompt: list[int], **sampling: Any) -> list[str]:
    """What a request is while it decodes, step by step, until it is taken apart or has ended."""
    request, seen = host.start(prompt, **sampling), []
    while not host.finished(request) and request not in host.operate("trees"):
        host.operate("step")
        seen.append(host.operate("kinds").get(request))
    host.abort(request)
    return [kind for kind in seen if kind is not None]


@pytest.mark.parametrize(
    ("sampling", "before"),
    [
        ({}, "Req"),
        ({"stop": ["never said"]}, "Req"),
        ({"logprobs": 2}, "Req"),
        ({"multiverse": {"max_branches": 8}}, "AskedRequest"),
        ({"multiverse": {"stream": "events"}}, "WatchedRequest"),
        ({"multiverse": WATCHED}, "WatchedRequest"),
    ],
)
def test_a_request_is_watched_from_its_first_tag_on_unless_something_asks_for_more(
    host: SGLangHost, prompts: list[list[int]], sampling: dict[str, Any], before: str
) -> None:
    assert list(dict.fromkeys([before, *kinds_until_forked(host, prompts[0], **sampling)])) == list(
        dict.fromkeys([before, "WatchedRequest", "WatchedRun"])
    )


def test_a_request_that_can_not_fork_is_never_watched(host: SGLangHost, prompts: list[list[int]]) -> None:
    assert set(kinds_until_forked(host, prompts[0], multiverse={"enabled": False}, max_tokens=20)) == {"Req"}


@pytest.mark.every_mode
def test_answers_and_records_are_those_of_requests_that_were_watched_from_the_beginning(
    host: SGLangHost, prompts: list[list[int]]
) -> None:
    each = [
        {},
        {"logprobs": 1},
        {"max_tokens": 1},
        {"max_tokens": 60},
        {"stop": ["="]},
        {"temperature": 1.0, "seed": 3},
    ]
    asked = list(zip(prompts, each, strict=True))
    host.flush()
    late = host.generate_each([(prompt, {**own, "multiverse": {"max_branches": 64}}) for prompt, own in asked])
    host.flush()
    early = host.generate_each([(prompt, {**own, "multiverse": WATCHED}) for prompt, own in asked])
    for one, other in zip(late, early, strict=True):
        assert (one.ids, one.finish_reason, one.record) == (other.ids, other.finish_reason, other.record)
        assert one.record is not None
        assert one.record["tokens"] == len(one.ids)
        assert (one.logprobs is None) == (other.logprobs is None)
        if one.logprobs is not None and other.logprobs is not None:
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert not any(host.leftovers().values()), host.leftovers()


def test_who_was_not_asked_for_has_a_record_only_if_it_forked(host: SGLangHost, prompts: list[list[int]]) -> None:
    (short,), (whole,) = host.generate(prompts[:1], max_tokens=3), host.generate(prompts[:1])
    assert short.record is None
    assert whole.record is not None
    assert whole.record["branches"] >= 2


def test_a_request_that_is_aborted_before_its_first_tag_leaves_nothing(
    host: SGLangHost, prompts: list[list[int]]
) -> None:
    requests = [host.start(prompts[0]), host.start(prompts[0], multiverse={"max_branches": 8})]
    host.operate("step")
    host.operate("step")
    for request in requests:
        host.abort(request)
        assert "abort" in host.answer(request).finish_reason
    assert host.answer(requests[0]).record is None
    assert not any(host.leftovers().values()), host.leftovers()
