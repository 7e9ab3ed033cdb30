"""A request without tags is vLLM's alone, and nobody can tell: its answer, record, logprobs and end are the same."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

pytest.importorskip("vllm", reason="the calls are vLLM's")

from vllm.v1.request import RequestStatus
from vllm_host import VLLMHost
from vllm_planting import raise_here

from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse_vllm.scheduler import admission

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"temperature": 1.0, "seed": 5, "logprobs": 2},
    "late": {"min_tokens": 30, "prompt_logprobs": 1},
    "short": {"max_tokens": 25},
    "penalised": {"presence_penalty": 0.4, "frequency_penalty": 0.2},
}


@pytest.fixture(scope="module")
def prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    """One whose answer does not fork, and two whose answers do."""
    rng = Random(31)
    return [tiny[1].encode(turn(generate(rng, kind, held_out=True))) for kind in ("single", "flat", "nested")]


def facts(answer: Any) -> list[Any]:
    """All of an answer but its times."""
    record = dict(answer.record or {})
    record["tree"] = [{**s, "started": None, "closed": None} for s in record.get("tree", ())]
    return [answer.ids, answer.logprobs, answer.finish_reason, record, answer.entries, answer.scores]


@pytest.mark.parametrize("options", [None, {}, {"return_tree": True, "max_branches": 8}], ids=["none", "given", "tree"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_whoever_gets_a_controller_late_gets_the_same_answer(
    host: VLLMHost, prompts: list[list[int]], sampling: str, options: dict[str, Any] | None
) -> None:
    given = SAMPLINGS[sampling] | ({} if options is None else {"multiverse": options})
    late = host.generate(prompts, **given)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(admission, "must_be_watched", lambda *_, **__: True)
        early = host.generate(prompts, **given)
    assert list(map(facts, late)) == list(map(facts, early))
    assert not any(host.leftovers().values())
    assert host.integrity() == []


def test_it_is_nobody_until_its_first_tag(host: VLLMHost, prompts: list[list[int]]) -> None:
    """Then it is a member, and goes on as host."""
    tags, trees = host.scheduler.binding.tags.keys(), host.scheduler.trees
    resting, _ = host.scheduler.variants
    request, seen = host.start(prompts[1]), list[int]()
    host.start(prompts[0], max_tokens=5)
    while host.leftovers()["requests"]:
        seen += host.step().get(request, [])
        tagged = not tags.isdisjoint(seen)
        if host.leftovers()["requests"]:
            assert bool(trees.members) == tagged
            assert (type(host.scheduler) is resting) == (not tagged)
            assert host.integrity() == []
    assert not tags.isdisjoint(seen)
    assert not trees.deferred


def test_one_that_can_not_be_enrolled_late_ends_alone(
    host: VLLMHost, prompts: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    (expected,) = host.generate(prompts[:1])
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(admission.Admission, "enroll_late", raise_here)
        plain, forking = host.generate(prompts[:2])
    assert (plain.ids, plain.finish_reason) == (expected.ids, expected.finish_reason)
    assert forking.finish_reason == "error"
    assert sum("Planted" in record.getMessage() for record in caplog.records) == 1
    assert not any(host.leftovers().values())
    assert host.integrity() == []


def test_one_whose_record_can_not_be_made_ends_with_an_error(
    host: VLLMHost, prompts: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(admission.Admission, "make_late", raise_here)
        asked, other = host.generate_each([(prompts[0], {"multiverse": {}}), (prompts[0], {})])
    assert (asked.finish_reason, other.finish_reason) == ("error", "stop")
    assert "Planted" in caplog.text
    assert not any(host.leftovers().values())


def test_an_operator_who_aborts_everything_gives_a_record_to_whoever_asked(
    host: VLLMHost, prompts: list[list[int]]
) -> None:
    asked, other = host.start(prompts[0], multiverse={}), host.start(prompts[0])
    said = sum(len(host.step().get(asked, ())) for _ in range(5))
    assert len(host.scheduler.trees.deferred) == 2
    host.scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)
    last = host.scheduler.answers.last_outputs
    assert [name.startswith(f"{asked}-") for name in last] == [True]
    (output,) = last.values()
    record = output.kv_transfer_params["multiverse_record"]
    assert (record["tokens"], record["finish_reason"]) == (said, "abort")
    last.clear()
    for name in (asked, other):
        host.abort(name)
    assert not any(host.leftovers().values())
