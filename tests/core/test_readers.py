"""Data and answers are read alike by every command: whole, or refused by name; never a part of them silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multiverse.harness.messages import MessageError, chat, one_text, spoken
from multiverse.harness.records import Record, read_records
from multiverse.harness.rows import Problem, Row, read_rows

BLOCK = (
    "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>\n"
    "<Path>\n1: x\n</Path>\n<Path>\n2: y\n</Path>\n<Conclusion>\nz\n</Conclusion>\n</Parallel>"
)
ODD = "one\u2028two\u0085three"
"""What `str.splitlines` would cut; JSON allows it in a text as it is."""


def texts(path: Path, field: str | None = None) -> list[str]:
    """The answers in a file, all of which can be read."""
    found = list(read_records(str(path), field))
    assert all(isinstance(record, Record) for record in found), found
    return [record.text for record in found if isinstance(record, Record)]


def write(path: Path, text: str, mark: bool = False) -> Path:
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    return path


# --- rows: one reader of files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [False, True], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("form", ["lines", "lines with \\r\\n", "list", "lines named .json", "one"])
def test_rows_are_the_same_in_every_form_of_file(tmp_path: Path, form: str, mark: bool) -> None:
    values = [{"question": ODD, "n": number} for number in range(1 if form == "one" else 3)]
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    text = {"list": json.dumps(values, ensure_ascii=False), "one": lines[0], "lines with \\r\\n": "\r\n".join(lines)}
    path = tmp_path / ("a.json" if form in ("list", "one", "lines named .json") else "a.jsonl")
    rows = list(read_rows(write(path, text.get(form, "\n".join(lines) + "\n\n"), mark), "a"))
    assert [row.value for row in rows if isinstance(row, Row)] == values
    places = {"list": ["a[1]", "a[2]", "a[3]"], "one": ["a"]}
    assert [row.place for row in rows] == places.get(form, ["a:1", "a:2", "a:3"])


def test_what_is_no_row_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b\n\xff\n' + b"[" * 100_000 + b"\n7\n")
    found = list(read_rows(path, "a"))
    assert [type(row) for row in found] == [Row, Problem, Problem, Problem, Row]
    assert [str(row)[:18] for row in found[1:4]] == ["a:2: is not JSON (", "a:3: is not UTF-8 ", "a:4: is nested too"]
    with pytest.raises(OSError, match="No such file"):
        list(read_rows(tmp_path / "none.jsonl"))


# --- turns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"content": "a"}, "a"),
        ({"content": None, "reasoning": "r"}, "r"),
        ({"reasoning_content": "r\n", "content": "a"}, "r\na"),
        ({"reasoning": "r", "reasoning_content": "r", "content": "a", "tool_calls": [], "refusal": None}, "ra"),
        ({"content": [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "a"}]}, "ra"),
        ({"from": "gpt", "value": "a"}, "a"),
    ],
)
def test_a_turn_is_read_with_its_thoughts_first(turn: dict[str, Any], said: str) -> None:
    assert spoken(turn) == said


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"content": "a", "tool_calls": [{"id": "x"}]}, "holds 'tool_calls', which can't be read as text"),
        ({"content": "", "refusal": "No."}, "holds 'refusal'"),
        ({"reasoning": "r", "reasoning_content": "s"}, "different texts in 'reasoning' and 'reasoning_content'"),
        ({"reasoning": ["r"]}, "'reasoning' must be a text, is list"),
        ({"content": {"text": "a"}}, "content must be a text or a list of parts, is dict"),
        ({"content": [{"type": "tool_use", "input": {}}]}, "holds a part of kind 'tool_use'"),
        ({"content": [{"type": "text"}]}, "holds a part of kind 'text' without a text"),
    ],
)
def test_what_is_not_text_is_refused_by_name(turn: dict[str, Any], reason: str) -> None:
    with pytest.raises(MessageError) as caught:
        spoken(turn)
    assert reason in str(caught.value)


def test_turns_may_come_as_equally_long_columns() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert chat({"role": ["user", "assistant"], "content": ["q", "a"]}) == chat(turns) == turns
    with pytest.raises(MessageError, match="equally long lists"):
        chat({"role": ["user"], "content": ["q", "a"]})


@pytest.mark.parametrize(
    ("value", "text"),
    [("18", "18"), (18, "18"), (["18"], "18"), (1.5, "1.5"), (["1", "2"], None), (True, None), ({}, None)],
)
def test_an_answer_is_one_text_or_number_also_alone_in_a_list(value: Any, text: str | None) -> None:
    assert one_text(value) == text


# --- answers ----------------------------------------------------------------------------------------------------

MESSAGE = {"role": "assistant", "content": BLOCK}
CHAT = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "message": MESSAGE}]}
ANSWERS: dict[str, Any] = {
    "training row": {"question": "?", "parallel": BLOCK, "sequential": "s", "answer": "4"},
    "sequential training row": {"question": "?", "sequential": BLOCK},
    "training row with turns": {
        "messages": [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "?"}],
        "parallel": BLOCK,
    },
    "columns of turns": {"messages": {"role": ["user", "assistant"], "content": ["?", BLOCK]}},
    "reasoning of vLLM": {"choices": [{"message": {"role": "assistant", "reasoning": BLOCK, "content": ""}}]},
    "OpenAI batch": {
        "id": "batch_req_1",
        "custom_id": "x",
        "response": {"status_code": 200, "body": CHAT},
        "error": None,
    },
    "Responses API": {
        "object": "response",
        "output": [
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": BLOCK[:40]}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": BLOCK[40:]}]},
        ],
    },
    "Anthropic": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": BLOCK}]},
    "Anthropic batch": {"custom_id": "x", "result": {"type": "succeeded", "message": MESSAGE}},
    "lm-eval": {"doc_id": 3, "doc": {"question": "?"}, "target": "4", "resps": [[BLOCK]], "filtered_resps": ["4"]},
    "multiple choice beside it": {"choices": ["3", "4"], "response": BLOCK},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_every_known_shape_are_read_whole(name: str, tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.jsonl", json.dumps(ANSWERS[name]))) == [BLOCK]


def test_every_repeat_and_every_choice_counts_also_an_empty_one(tmp_path: Path) -> None:
    rows = [{"doc_id": 3, "resps": [["a", "b"]]}, {"id": "c", "choices": [{"text": "x"}, {"text": ""}]}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    found = [(record.id, record.text) for record in read_records(str(path)) if isinstance(record, Record)]
    assert found == [("3#1", "a"), ("3#2", "b"), ("c#1", "x"), ("c#2", "")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"custom_id": "x", "response": None, "error": {"message": "too long"}},
            "holds an error: {'message': 'too long'}",
        ),
        ({"custom_id": "x", "result": {"type": "expired"}}, "'result' holds no 'message'"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "turn 1: holds 'tool_calls'"),
        ({"object": "response", "output": [{"type": "function_call"}]}, "holds an item of kind 'function_call'"),
        ({"resps": [[["-1.5", "True"]]]}, "'resps' holds no texts"),
        ({"response": ["a", 7]}, "'response': item 2 is no text but int"),
        ({"other": 1}, "holds no answer"),
    ],
)
def test_an_answer_that_cannot_be_read_is_named_with_its_place(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (found,) = read_records(str(write(tmp_path / "a.jsonl", json.dumps(row))))
    assert isinstance(found, Problem)
    assert str(found).startswith("a.jsonl:1: ")
    assert reason in found.message


def test_a_field_may_be_a_path_through_objects_and_lists(tmp_path: Path) -> None:
    row = {"results": [{"out": {"text": "a"}}, {"out": {"text": "b"}}], "a.b": "dot"}
    path = write(tmp_path / "a.json", json.dumps(row))
    assert texts(path, "results.out.text") == ["a", "b"]
    assert texts(path, "results.1.out.text") == ["b"]
    assert texts(path, "a.b") == ["dot"]


def test_answers_keep_characters_that_look_like_line_ends(tmp_path: Path) -> None:
    rows = [{"response": ODD}, {"response": BLOCK}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert texts(write(tmp_path / "a.jsonl", lines, mark=True)) == [ODD, BLOCK]
