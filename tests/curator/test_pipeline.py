"""The whole pipeline over HTTP, against a teacher that knows the chains and fails as real models and endpoints do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from chains import chain
from curating import LEAN, Configure, Serve, lines

from multiverse import parse_text, registry
from multiverse.curator import curate, load_config
from multiverse.curator.checks.answer import Agreement, compare_answers
from multiverse.curator.checks.content import edit_ratio
from multiverse.curator.checks.grammar import plain
from multiverse.curator.checks.independence import check_references
from multiverse.curator.sentences import split

DIALECT = registry.get("multiverse")


def standing_alone(sentence: str) -> str:
    """What the teacher makes of a sentence that leans on a sibling."""
    return LEAN.sub(lambda match: match[1].upper(), sentence.strip())


def check_example(example: dict[str, Any], artefacts: dict[str, Any]) -> None:
    """Every promise about an accepted example, checked anew from the training file alone where that is possible."""
    tree = parse_text(example["parallel"])
    assert tree.well_formed
    text = plain(example["parallel"], DIALECT)
    assert all(s.strip() in text or standing_alone(s) in text for s in split(example["sequential"]))
    assert artefacts["checks"].get("edit_ratio", 0) <= 0.2
    assert edit_ratio(example["sequential"], text) <= 0.6  # outlines and conclusions are new
    assert compare_answers(example["sequential"], text) is Agreement.AGREES
    for block in tree.walk():
        texts = ["".join(map(str, tree.tokens[path.start : path.end])) for path in block.paths]
        assert not check_references(texts, [path.label for path in block.paths])


def test_without_faults_every_chain_becomes_an_example_at_the_first_try(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    config = load_config(configure(url, 30))
    run = curate(config)
    assert run.statistics.accepted == 30
    assert all(stage.passed == stage.asked for stage in run.statistics.stages.values())
    assert len(teacher.answered) == sum(used.requests for used in run.statistics.usage)
    training, artefacts = lines(config.output / "train.jsonl"), lines(config.output / "artefacts.jsonl")
    for number, (example, artefact) in enumerate(zip(training, artefacts, strict=True)):
        record = chain(number)
        assert set(example) == {"id", "question", "parallel", "sequential", "answer"}
        assert (example["id"], example["sequential"]) == (record["id"], record["reasoning"])
        check_example(example, artefact)
    families = {family: [e for e in training if e["id"].startswith(family)] for family in ("days", "rounds", "ware")}
    assert all(example["parallel"] == example["sequential"] for example in families["days"])
    assert all(len(parse_text(example["parallel"]).blocks) == 2 for example in families["rounds"])
    assert all(max(b.depth for b in parse_text(e["parallel"]).walk()) == 2 for e in families["ware"])


def test_with_faults_in_thirty_percent_of_replies_at_least_95_percent_are_accepted_and_all_of_them_right(
    teach: Serve, configure: Configure
) -> None:
    teacher, url = teach(faults=0.3, hang=3.0)
    config = load_config(configure(url, 120, endpoint={"concurrency": 24, "timeout": 1.5}))
    run = curate(config)
    asked = sum(teacher.seen.values())
    assert 0.25 < sum(n for kind, n in teacher.injected.items() if kind) / asked < 0.35
    kinds = {"dropped", "tags", "prose", "cross", "truncated", "429", "500", "timeout"}
    assert kinds == {kind for kind, times in teacher.injected.items() if kind and times}
    assert run.statistics.accepted >= 0.95 * 120
    training = lines(config.output / "train.jsonl")
    artefacts = {artefact["id"]: artefact for artefact in lines(config.output / "artefacts.jsonl")}
    for example in training:
        check_example(example, artefacts[example["id"]])
    refused = lines(config.output / "rejected.jsonl")
    assert len(refused) + len(training) == 120
    assert all(record["reasons"] and record["stage"] for record in refused)


def test_latex_with_signs_that_mean_something_in_html_is_unharmed(teach: Serve, configure: Configure) -> None:
    _, url = teach()
    config = load_config(configure(url, 20))
    curate(config)
    originals = {number: chain(number)["reasoning"] for number in range(20)}
    for number, example in enumerate(lines(config.output / "train.jsonl")):
        for formula in re.findall(r"\$[^$]*\$", originals[number]):
            assert formula in example["parallel"]
        assert "&amp;" not in example["parallel"]


def test_every_artefact_of_every_stage_is_kept(teach: Serve, configure: Configure) -> None:
    _, url = teach()
    config = load_config(configure(url, [chain(0)]))
    curate(config)
    (outcome,) = lines(config.output / "artefacts.jsonl")
    assert list(outcome["artefacts"]) == ["summary", "grouping", "plan", "refill", "mapreduce"]
    assert [attempt["stage"] for attempt in outcome["attempts"]] == [
        *("summary", "grouping", "restructuring", "refilling", "mapreduce", "mapreduce", "document")
    ]
    assert outcome["chain"]["reasoning"] == chain(0)["reasoning"]
    report = json.loads((config.output / "report.json").read_text())
    assert report["graded_with"].startswith("math-verify ")
    assert (report["accepted"], report["widths"], report["groups"]["collective"]) == (1, {"2": 1, "3": 1}, 2)


def test_a_second_run_asks_nothing_and_writes_the_same(teach: Serve, configure: Configure) -> None:
    teacher, url = teach(faults=0.2, hang=0.1)
    config = load_config(configure(url, 10))
    curate(config)
    before = {path.name: path.read_bytes() for path in config.output.glob("*.json*")}
    asked = sum(teacher.seen.values())
    curate(config)
    assert sum(teacher.seen.values()) == asked
    assert {path.name: path.read_bytes() for path in config.output.glob("*.json*")} == before


def test_other_checks_judge_the_kept_replies_anew_without_asking_again(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    config = load_config(configure(url, 10))
    assert curate(config).statistics.accepted == 10
    asked = sum(teacher.seen.values())
    strict = load_config(configure(url, 10, checks={"max_rewrite": 0.4}, keep_sequential=True))
    assert curate(strict).statistics.accepted == 10
    assert sum(teacher.seen.values()) == asked


def test_equal_chains_are_asked_once(teach: Serve, configure: Configure) -> None:
    teacher, url = teach(latency=0.05)
    config = load_config(configure(url, [chain(3)] * 6))
    assert curate(config).statistics.accepted == 6
    assert set(teacher.seen.values()) == {1}


def test_every_round_asks_anew_even_if_it_has_the_same_to_say(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    honest = teacher._reply
    teacher._reply = lambda messages, _: honest(messages, "cross")  # type: ignore[method-assign]
    config = load_config(configure(url, [chain(1)], tries=1, rounds=4))
    assert curate(config).statistics.rejected_at == {"mapreduce": 1}
    assert len(teacher.answered) == 4 * 5


def test_an_outcome_of_other_settings_is_not_taken_for_one_of_these(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    config = load_config(configure(url, 4))
    assert curate(config).statistics.accepted == 4
    teacher.answer = lambda _: (500, {"error": {"message": "down"}})  # type: ignore[method-assign]
    other = load_config(configure(url, 4, parameters={"temperature": 0.9}, endpoint={"retries": 0}))
    run = curate(other)
    assert (run.statistics.chains, run.summary.unfinished) == (0, 4)
    assert lines(config.output / "train.jsonl") == []


def test_records_that_left_the_input_leave_the_results(teach: Serve, configure: Configure) -> None:
    _, url = teach()
    assert curate(load_config(configure(url, 6))).statistics.accepted == 6
    shorter = load_config(configure(url, [chain(0), {"broken": 1}, chain(2), chain(3)]))
    run = curate(shorter)
    assert (run.statistics.chains, run.statistics.rejected_at) == (4, {"input": 1})
    assert [example["id"] for example in lines(shorter.output / "train.jsonl")] == [chain(n)["id"] for n in (0, 2, 3)]


@pytest.mark.parametrize("name", ["npr", "threadweaver"])
def test_other_dialects_get_blocks_as_deep_as_they_allow(name: str, teach: Serve, configure: Configure) -> None:
    _, url = teach()
    config = load_config(configure(url, [chain(0), chain(36)], dialect=name))
    assert chain(36)["id"].startswith("warehouses")
    run = curate(config)
    outcomes = lines(config.output / "artefacts.jsonl")
    for example in lines(config.output / "train.jsonl"):
        assert parse_text(example["parallel"], name).well_formed
    assert run.statistics.accepted >= 1
    assert all("nested 2 deep" in reason for o in outcomes if o["stage"] for reason in o["reasons"])


def test_stages_have_models_and_parameters_of_their_own(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    bodies: list[dict[str, Any]] = []
    answer = teacher.answer
    teacher.answer = lambda request: (bodies.append(request), answer(request))[1]  # type: ignore[method-assign,func-returns-value]
    stages = {"mapreduce": {"model": "big", "parameters": {"max_completion_tokens": 900, "reasoning_effort": "low"}}}
    prices = {"teacher": {"input": 1.0}, "big": {"output": 1000.0}}
    config = load_config(configure(url, [chain(0)], stages=stages, parameters={"temperature": 0.1}, prices=prices))
    run = curate(config)
    big = [body for body in bodies if body["model"] == "big"]
    assert len(big) == 2
    assert all(b["max_completion_tokens"] == 900 and b["reasoning_effort"] == "low" for b in big)
    assert all(b["temperature"] == 0.1 for b in bodies)
    used = {usage.stage: usage for usage in run.statistics.usage}
    prompt = sum(usage.prompt_tokens for usage in run.statistics.usage if usage.model == "teacher")
    expected = (prompt + 1000 * used["mapreduce"].completion_tokens) / 1e6
    assert run.statistics.cost(config.prices) == pytest.approx(expected)
    assert run.statistics.cost({}) is None


def test_a_response_after_the_reasoning_is_kept_behind_both_chains(teach: Serve, configure: Configure) -> None:
    _, url = teach()
    config = load_config(configure(url, [chain(0) | {"response": "The answer is at hand."}]))
    curate(config)
    (example,) = lines(config.output / "train.jsonl")
    assert example["parallel"].endswith("\n\nThe answer is at hand.")
    assert example["sequential"].endswith("\n\nThe answer is at hand.")
