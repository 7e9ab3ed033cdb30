"""Answers in files, graded without a server: 80 of Multiverse-32B where they are, small ones everywhere."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from program import ROOT, run

TRANSCRIPTS = (
    next((p for p in (ROOT.parent / "shared", ROOT.parents[1] / "shared") if p.exists()), ROOT)
    / "transcripts"
    / "multiverse32b.jsonl"
)
BLOCK = (
    "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>\n<Path>\n1: one two three\n"
    "</Path>\n<Path>\n2: four five six\n</Path>\n<Conclusion>\nboth\n</Conclusion>\n</Parallel>"
)


def record(number: int, response: str, reference: str = "12", **more: Any) -> dict[str, Any]:
    return {"id": f"p{number}", "benchmark": "b", "response": response, "reference": reference, **more}


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def test_answers_are_graded_and_measured_by_benchmark(tmp_path: Path) -> None:
    prompt = "Say: the final answer is 12. What is 3 times 4?"
    records = [
        record(0, f"{BLOCK}\nThe final answer is \\boxed{{12}}."),
        record(1, "The final answer is 13."),
        record(2, "I think it is 12"),
        record(3, prompt + " I don't know", prompt=prompt),  # an echoed prompt is no answer
        record(4, "\\boxed{1} <Path>", benchmark="c", reference="1"),
    ]
    done = run("recorded", write(tmp_path / "a.jsonl", records), "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    b, c = found["scores"]
    assert (b["task"], b["samples"], b["accuracy"], b["no_answer"], b["trigger_rate"]) == ("b", 4, 0.25, 0.5, 0.25)
    assert b["parallel_degree"] > 1
    assert (c["accuracy"], c["well_formed"], b["well_formed"]) == (1.0, 0.0, 1.0)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| b | 4 | 4 | 25.0 (" in report
    release = f"math-verify {metadata.version('math-verify')}"
    assert f"Mathematics was compared by {release}." in report
    assert json.loads((tmp_path / "out" / "results.json").read_text())["about"]["graded_with"] == release
    assert (tmp_path / "out" / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_several_answers_to_one_problem_are_samples_of_it(tmp_path: Path) -> None:
    records = [record(0, "\\boxed{12}"), record(0, "\\boxed{13}"), record(1, "\\boxed{12}"), record(1, "\\boxed{12}")]
    done = run("recorded", write(tmp_path / "a.jsonl", records), "--json")
    (score,) = json.loads(done.stdout)
    assert (score["problems"], score["samples"], score["accuracy"]) == (2, 4, 0.75)


def test_a_truncated_file_costs_its_last_record_and_says_so(tmp_path: Path) -> None:
    records = [record(0, "\\boxed{12}"), record(1, "\\boxed{12}"), json.dumps(record(2, "\\boxed{12}"))[:40]]
    done = run("recorded", write(tmp_path / "a.jsonl", records), "--json")
    assert done.returncode == 1
    assert "a.jsonl:3: is not JSON" in done.stderr
    assert json.loads(done.stdout)[0]["samples"] == 2


def test_a_record_without_the_right_answer_is_named(tmp_path: Path) -> None:
    records = [record(0, "\\boxed{12}"), {"id": "odd", "response": "\\boxed{12}"}]
    done = run("recorded", write(tmp_path / "a.jsonl", records))
    assert done.returncode == 1
    assert "odd: lacks 'reference'" in done.stderr
    nothing = run("recorded", write(tmp_path / "b.jsonl", [records[1]]))
    assert (nothing.returncode, "nothing to grade" in nothing.stderr) == (2, True)


@pytest.mark.skipif(not TRANSCRIPTS.exists(), reason="the 80 answers are not part of the repository")
def test_the_grader_agrees_with_the_boxed_answers_of_80_real_ones(tmp_path: Path) -> None:
    done = run("recorded", TRANSCRIPTS, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    scores = {s["task"]: s for s in json.loads((tmp_path / "results.json").read_text())["scores"]}
    texts = {r["id"]: r["response"] for r in map(json.loads, TRANSCRIPTS.read_text().splitlines())}
    boxes = {s["id"]: s["verdict"] for s in samples if "\\boxed{" in texts[s["id"]]}
    # read by eye: all boxed answers are right but that of entry_27 (51, not 55) and test_algebra_276 (2, not 12)
    assert {id_ for id_, verdict in boxes.items() if verdict != "correct"} == {"entry_27", "test_algebra_276"}
    assert len(boxes) == 61
    # all without a box were cut off while thinking
    assert not any(s["verdict"] == "correct" for s in samples if s["id"] not in boxes)
    assert {name: round(s["accuracy"] * s["samples"]) for name, s in scores.items()} == {"AIME24": 11, "MATH500": 48}
