"""Tasks are data: ten lines of YAML, a file with problems; what is wrong with either is named with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multiverse.errors import RunError
from multiverse.evaluation.problems import checksum, load_problems
from multiverse.evaluation.tasks import Task, builtin_tasks, load_task

GPQA = {"id": "q", "Question": "Which?", "good": "iron", "bad": "lead", "worse": "tin"}


def lines(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_task_of_ten_lines(tmp_path: Path) -> None:
    lines(tmp_path / "mine.jsonl", {"q": "2+2?", "a": 4}, {"q": "3+3?", "a": "6"})
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nsource: mine.jsonl\nfields: {question: q, answer: a}\ngrader: math\n"
        'prompt: "{question} Use \\\\boxed{}."\ninstructions: {parallel: "Side by side."}\nlicence: CC0\n'
    )
    task = load_task("mine.yaml", tmp_path)
    problems = load_problems(task)
    assert [(problem.question, problem.answer) for problem in problems] == [("2+2?", "4"), ("3+3?", "6")]
    assert task.messages("2+2?", "", "parallel") == [
        {"role": "system", "content": "Side by side."},
        {"role": "user", "content": "2+2? Use \\boxed{}."},
    ]
    assert [message["role"] for message in task.messages("2+2?", "", "plain")] == ["user"]


def test_a_list_odd_line_ends_and_answers_in_lists_are_read(tmp_path: Path) -> None:
    rows = [{"question": "one\u2028two", "answer": ["18"]}, {"question": "b", "answer": 6}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "a.json").write_text(json.dumps(rows))
    for name in ("a.jsonl", "a.json"):
        task = load_task({"name": "a", "source": name}, tmp_path)
        found = [(problem.question, problem.answer) for problem in load_problems(task)]
        assert found == [("one\u2028two", "18"), ("b", "6")]
    source = lines(tmp_path / "b.jsonl", {"question": "?", "answer": ["1", "2"]})
    with pytest.raises(RunError, match=r"b.jsonl:1: 'answer' must be one text or number, is \['1', '2'\]"):
        load_problems(Task(name="b", source=source))


def test_the_modes_differ_in_what_the_model_is_told() -> None:
    task = load_task("aime24", Path())
    parallel, sequential = (task.messages("x", "", mode)[0]["content"] for mode in ("parallel", "sequential"))  # type: ignore[arg-type]
    assert "parallel" in parallel
    assert "parallel" not in sequential


@pytest.mark.parametrize("name", builtin_tasks())
def test_every_task_of_the_package_can_be_read_and_names_its_licence(name: str) -> None:
    task = load_task(name, Path())
    assert task.name == name
    assert task.licence != "not stated"
    assert "{question}" in task.prompt


def test_the_embedded_problems_are_held_out_and_always_the_same() -> None:
    from multiverse.models.task import is_held_out

    task = load_task("embedded", Path())
    problems = load_problems(task)
    assert len(problems) == task.size
    assert all(is_held_out(problem.question) for problem in problems)
    assert checksum(problems) == checksum(load_problems(task))


def test_choices_are_mixed_the_same_way_every_time(tmp_path: Path) -> None:
    fields = {"question": "Question", "answer": "good", "choices": ["bad", "worse"]}
    rows = [GPQA | {"id": str(i), "Question": f"Which? {i}"} for i in range(20)]
    task = Task(name="g", source=lines(tmp_path / "g.jsonl", *rows), fields=fields, grader="choice")
    problems = load_problems(task)
    assert problems == load_problems(task)
    assert {problem.answer for problem in problems} == {"A", "B", "C"}
    for problem in problems:
        assert f"({problem.answer}) iron" in problem.choices.splitlines()


def test_choices_may_come_as_a_list_with_the_letter(tmp_path: Path) -> None:
    source = lines(tmp_path / "g.jsonl", {"question": "?", "answer": "b", "choices": ["x", "y"]})
    (problem,) = load_problems(Task(name="g", source=source, grader="choice"))
    assert (problem.answer, problem.choices) == ("B", "(A) x\n(B) y")
    source = lines(tmp_path / "h.jsonl", {"question": "?", "answer": "C", "choices": ["x", "y"]})
    with pytest.raises(RunError, match=r"h.jsonl:1.*the letter of the right one"):
        load_problems(Task(name="h", source=source, grader="choice"))


def test_a_checksum_holds_problems_fast(tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", {"question": "2+2?", "answer": "4"})
    sum_ = checksum(load_problems(Task(name="a", source=source)))
    assert load_problems(Task(name="a", source=source, sha256=sum_))
    lines(tmp_path / "a.jsonl", {"question": "2+2?", "answer": "5"})
    with pytest.raises(RunError, match=f"has the checksum .*, not {sum_}"):
        load_problems(Task(name="a", source=source, sha256=sum_))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "x", "answer": "1"}\n{"question": "y", "ans', r"a.jsonl:2: is not JSON.*cut off"),
        ('{"question": "x"}\n', "a.jsonl:1: lacks 'answer'"),
        ("[1]\n", "must be an object"),
        ("", "holds no problem"),
        ('{"id": 1, "question": "x", "answer": 1}\n' * 2, "two problems with the same 'id'"),
    ],
)
def test_a_broken_file_is_named_with_the_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(RunError, match=message):
        load_problems(Task(name="a", source=str(tmp_path / "a.jsonl")))
