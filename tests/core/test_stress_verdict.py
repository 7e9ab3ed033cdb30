"""What `multiverse stress` asks and how it judges, without a server; tests/e2e/test_stress.py has the rest."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from multiverse import get_dialect, parse_text
from multiverse.errors import RunError
from multiverse.serving.options import Options
from multiverse.stress.asks import MALFORMED, WEIGHTS, Ask, Kind, Writer
from multiverse.stress.gauges import Gauges, from_text
from multiverse.stress.report import Report, Round, Settings
from multiverse.stress.results import Answer, Outcome, Result

REST = Gauges(kv_usage=0.0, running=0, waiting=0, branches=0, parked=0, integrity_failures=0, memory=600.0)
VLLM = """
vllm:num_requests_running{engine="0"} 2.0
vllm:num_requests_running{engine="1"} 1.0
vllm:num_requests_waiting{engine="0"} 4.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
multiverse:running_branches{engine="0"} 6.0
multiverse:parked_sequences{engine="0"} 3.0
multiverse:integrity_failures_total{engine="0"} 2.0
process_resident_memory_bytes 1048576.0
"""
SGLANG = """
sglang:num_running_reqs{tp_rank="0"} 3.0
sglang:num_queue_reqs{tp_rank="0"} 4.0
sglang:token_usage{tp_rank="0"} 0.5
multiverse:running_branches{engine="0"} 6.0
multiverse:parked_sequences{engine="0"} 3.0
multiverse:integrity_failures_total{engine="0"} 2.0
"""


def writer(dialect: str = "multiverse", context: int = 4096) -> Writer:
    return Writer("model", get_dialect(dialect), ["one", "two"], 400, context)


def drawn(writer: Writer, kind: Kind, number: int = 40) -> list[Ask]:
    rng = Random(1)
    found: list[Ask] = []
    while len(found) < number:
        ask = writer.draw(rng)
        found += [ask] if ask.kind == kind else []
    return found


def settings(**changes: float) -> Settings:
    return replace(Settings("http://host", get_dialect("multiverse"), ["one"]), **changes)  # type: ignore[arg-type]


def result(outcome: Outcome, detail: str = "") -> Result:
    return Result(Ask("structured", question=0), outcome, Answer("text", 10, 2), detail)


def report(*outcomes: Outcome, rest: Gauges = REST, settled: float | None = 1.0, **allowed: float) -> Report:
    rounds = [
        Round(1, [result("same")], 1.0, 0.2, REST, 1.0),
        Round(2, [result(each, "why") for each in outcomes], 1.0, 0.3, rest, settled),
    ]
    return Report(settings(**allowed), REST, 1, rounds)


@pytest.mark.parametrize(("text", "memory"), [(VLLM, 1.0), (SGLANG, None)], ids=["vllm", "sglang"])
def test_both_hosts_metrics_are_understood(text: str, memory: float | None) -> None:
    assert from_text(text, "host") == Gauges(0.5, 3.0, 4.0, 6.0, 3.0, 2.0, memory)


def test_a_server_without_the_plugins_metrics_is_named() -> None:
    with pytest.raises(RunError, match="host/metrics has none of multiverse:running_branches: was the server started"):
        from_text(VLLM.replace("multiverse:", "other:"), "host")


@pytest.mark.parametrize("field", ["running", "waiting", "branches", "parked"])
def test_a_server_is_at_rest_only_if_nothing_runs_waits_or_is_held(field: str) -> None:
    assert REST.idle
    assert not replace(REST, **{field: 1.0}).idle


def test_every_kind_is_drawn_and_the_same_seed_draws_the_same() -> None:
    first, second = ([writer().draw(rng) for _ in range(400)] for rng in (Random(3), Random(3)))
    assert first == second
    assert {ask.kind for ask in first} == set(WEIGHTS)


@pytest.mark.parametrize(("given", "word"), [each for each in MALFORMED if each[1] != "temperature"])
def test_every_malformed_field_is_refused_with_its_word(given: Any, word: str) -> None:
    """But for a temperature, whose range is the host's to know."""
    with pytest.raises(ValueError, match=word):
        Options().for_request(given)


@pytest.mark.parametrize("dialect", ["multiverse", "npr", "threadweaver"])
def test_wide_prompts_end_with_a_closed_goal_of_many_outlines(dialect: str) -> None:
    widths = []
    for ask in drawn(writer(dialect), "wide"):
        (block,) = parse_text(ask.body["prompt"], get_dialect(dialect)).blocks
        assert block.goal_close is not None
        assert not block.paths
        widths.append(len(block.outlines))
    assert max(widths) > 64
    assert min(widths) < 20


def test_deep_prompts_open_blocks_in_conclusions_deeper_than_is_allowed() -> None:
    depths = set()
    for ask in drawn(writer(), "deep"):
        depths.add(ask.body["prompt"].count("<Parallel>"))
        assert ask.body["prompt"].endswith("</Goal>\n")
    assert depths == set(range(1, 9))
    assert max(depths) > Options().max_depth


def test_forced_prompts_fit_a_small_context() -> None:
    for kind in ("wide", "deep"):
        for ask in drawn(writer(context=512), kind):
            tags_and_letters = ask.body["prompt"].replace("<", "\0<").count("\0") * 4
            assert tags_and_letters + ask.body["max_tokens"] <= 512


def test_a_server_that_held_has_no_problem() -> None:
    assert report("same", "answered", "left", "refused").problems == []


def test_one_differing_answer_is_a_problem_unless_it_is_allowed() -> None:
    (problem,) = report("same", "different").problems
    assert problem == "1 of 3 undisturbed answers differ; the first: structured, why"
    assert report("same", "different", may_differ=0.34).problems == []


def test_what_failed_is_told_by_round() -> None:
    assert report("failed", "failed").problems == ["round 2: structured: why"] * 2


def test_a_server_that_does_not_come_to_rest_is_a_problem() -> None:
    (problem,) = report("same", rest=replace(REST, parked=2.0), settled=None).problems
    assert problem == "round 2: not at rest after 120 s: KV 0.0%, 0 running, 0 waiting, 0 branches, 2 parked, 600 MiB"


def test_memory_may_grow_by_so_much() -> None:
    grown = replace(REST, memory=1200.0)
    assert report("same", rest=grown).problems == ["memory grew by 600 MiB"]
    assert report("same", rest=grown, max_growth=700.0).problems == []


def test_nothing_to_compare_and_a_server_that_is_gone_are_problems() -> None:
    nothing = Report(settings(), REST, 0, [], gone="connection refused")
    assert nothing.problems == [
        "no question is answered twice alike by the quiet server: nothing compared",
        "after round 0 the server is gone: connection refused",
    ]


def test_the_csv_has_a_line_per_round(tmp_path: Path) -> None:
    report("same", "different", "left").write(tmp_path / "stress.csv")
    with (tmp_path / "stress.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["round"], first["same"], first["kv_peak"], first["memory"]) == ("1", "1", "0.2", "600.0")
    assert [second[name] for name in ("same", "different", "left", "tokens", "forked_branches")] == [
        *("1", "1", "1", "30", "6"),
    ]


def test_books_that_differ_fail_a_server_that_answers_rightly() -> None:
    report = Report(
        settings(), REST, 1, [Round(1, [result("same")], 1.0, 0.1, replace(REST, integrity_failures=1), 0.5)]
    )
    assert "books" in report.problems[0]
