"""What the Curator refuses, and what it makes of that: other tries, reasons, artefacts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chains import chain
from curating import LEAN, Configure, Serve, lines

from multiverse.curator import RunError, curate, load_config


def test_the_reason_of_a_refusal_is_fed_back(teach: Serve, configure: Configure) -> None:
    """The teacher gives every first answer without its last part; only the feedback makes it do better."""
    teacher, url = teach()
    honest, prompts = teacher._reply, []

    def forgetful(messages: list[dict[str, str]], fault: str) -> tuple[str, str]:
        prompts.append(messages)
        return honest(
            messages, "dropped" if len(messages) == 2 and "# Task: refilling" in messages[1]["content"] else fault
        )

    teacher._reply = forgetful  # type: ignore[method-assign]
    config = load_config(configure(url, [chain(0)]))
    assert curate(config).statistics.accepted == 1
    (again,) = [messages for messages in prompts if len(messages) == 4]
    assert again[2]["role"] == "assistant"
    assert "no sentence was given to label" in again[3]["content"]


def test_what_fails_in_every_try_is_kept_with_its_stage_and_reason(teach: Serve, configure: Configure) -> None:
    teacher, url = teach()
    honest = teacher._reply
    teacher._reply = lambda messages, _: honest(messages, "cross")  # type: ignore[method-assign]
    config = load_config(configure(url, [chain(0)], tries=2, rounds=2))
    run = curate(config)
    assert run.statistics.rejected_at == {"mapreduce": 1}
    (refused,) = lines(config.output / "rejected.jsonl")
    assert "path 1" in refused["reasons"][0]
    assert refused["chain"]["reasoning"] == chain(0)["reasoning"]
    (outcome,) = lines(config.output / "artefacts.jsonl")
    failed = [attempt for attempt in outcome["attempts"] if attempt["reasons"]]
    assert {(attempt["round"], attempt["number"]) for attempt in failed} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_judge_refuses_what_the_rules_let_pass(teach: Serve, configure: Configure) -> None:
    """Sentences that lean by a phrase which no rule knows; without the judge they would stay."""
    record = chain(0)
    record["reasoning"] = re.sub(LEAN, r"As order A was done, \1", record["reasoning"])
    _, url = teach()
    lenient = load_config(configure(url, [record], name="lenient"))
    assert curate(lenient).statistics.accepted == 1
    judged = load_config(configure(url, [record], name="judged", checks={"judge": True}, tries=2))
    assert curate(judged).statistics.rejected_at == {"mapreduce": 1}
    (refused,) = lines(judged.output / "rejected.jsonl")
    assert "leans on what was said before" in refused["reasons"][0]
    good = load_config(configure(url, [chain(0)], name="good", checks={"judge": True}))
    assert curate(good).statistics.accepted == 1


def test_a_conclusion_that_changes_the_answer_is_refused(teach: Serve, configure: Configure) -> None:
    record = next(chain(n) for n in range(99) if chain(n)["id"].startswith("orders"))
    work = record["reasoning"][: record["reasoning"].index("Let me put")].strip()
    record |= {"reasoning": f"{work} The final answer is $\\boxed{{42}}$.", "answer": ""}  # ends with the last path
    teacher, url = teach()
    assert curate(load_config(configure(url, [record], name="right"))).statistics.accepted == 1
    honest = teacher._reply
    teacher._reply = lambda *asked: (honest(*asked)[0].replace("{42}", "{43}"), "stop")  # type: ignore[method-assign]
    wrong = load_config(configure(url, [record], name="wrong"))
    assert curate(wrong).statistics.rejected_at == {"document": 1}
    assert "it must be 42, it now is 43" in lines(wrong.output / "rejected.jsonl")[0]["reasons"][0]


def test_chains_that_cannot_come_out_right_are_refused_before_anything_is_asked(
    teach: Serve, configure: Configure
) -> None:
    teacher, url = teach()
    wrong, tagged = chain(1), chain(2)
    wrong["answer"] = "7"
    tagged["reasoning"] = "See <Path> here. " + tagged["reasoning"]
    records = [wrong, tagged, {"question": "no reasoning"}, ["a list"], {"question": "q", "reasoning": 5}]
    config = load_config(configure(url, records))
    run = curate(config)
    assert run.statistics.rejected_at == {"input": 5}
    assert not teacher.seen
    reasons = [record["reasons"][0] for record in lines(config.output / "rejected.jsonl")]
    for reason, words in zip(
        reasons, ["answer '7'", "<Path>", "'reasoning' must hold text", "must be an object", "'reasoning'"], strict=True
    ):
        assert words in reason
    kept = load_config(configure(url, [wrong], name="kept", checks={"keep_wrong": True}))
    assert curate(kept).statistics.accepted == 1


def test_a_chain_without_independent_steps_is_kept_or_refused_as_the_settings_say(
    teach: Serve, configure: Configure
) -> None:
    record = next(chain(n) for n in range(99) if chain(n)["id"].startswith("days"))
    _, url = teach()
    kept = curate(load_config(configure(url, [record], name="kept")))
    assert (kept.statistics.accepted, kept.statistics.parallel) == (1, 0)
    refused = curate(load_config(configure(url, [record], name="refused", keep_sequential=False)))
    assert refused.statistics.rejected_at == {"grouping": 1}


def test_settings_that_make_no_sense_are_named_with_their_field(configure: Configure, tmp_path: Path) -> None:
    cases = {
        "endpoint.concurrency": {"endpoint": {"concurrency": 0}},
        "checks.max_edit_ratio": {"checks": {"max_edit_ratio": 2}},
        "stages.sumary": {"stages": {"sumary": {}}},
        "modell": {"modell": "x"},
        "dialect": {"dialect": "none such"},
    }
    for place, settings in cases.items():
        with pytest.raises(RunError, match=place.replace(".", r"\.")):
            load_config(configure("http://localhost", 1, **settings))
    with pytest.raises(RunError, match="can't be read"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RunError, match="not a YAML file"):
        load_config(tmp_path / "bad.yaml")
