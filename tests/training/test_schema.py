"""Every row is either an example or a problem that says where it is and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small import DIALECT, answer, write_rows

from multiverse.errors import TrainingError
from multiverse.training.schema import Example, Problem, check, read

GOOD = {"id": "g", "question": "Who?", "parallel": answer("a", "b"), "sequential": "a b", "answer": 5}
BLOCK = answer("a", "b")


def test_a_question_with_both_chains_is_an_example() -> None:
    found = check(GOOD, "f:1", DIALECT)
    assert found == Example("g", ({"role": "user", "content": "Who?"},), BLOCK, "a b", "5")
    assert found.text(parallel=True) == BLOCK
    assert found.text(parallel=False) == "a b"


def test_a_chat_that_ends_with_the_assistant_is_an_example_of_its_last_turn() -> None:
    turns = [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", BLOCK)]
    found = check({"messages": [{"role": r, "content": c} for r, c in turns]}, "f:7", DIALECT)
    assert isinstance(found, Example)
    assert [turn["content"] for turn in found.messages] == ["s", "q", "a", "r"]
    assert (found.id, found.parallel, found.sequential) == ("f:7", BLOCK, None)
    assert found.text(parallel=False) == BLOCK, "the only form there is"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": None}, "needs 'question' or 'messages', one of the two; columns are id, parallel, sequential"),
        ({"messages": []}, "one of the two"),
        ({"question": 7}, "column 'question': must be a text, is 7"),
        ({"question": None, "messages": "hi"}, "column 'messages': must be a list of turns, is str"),
        ({"question": None, "messages": [{"role": "tool", "content": "x"}]}, "turn 1: must have a role"),
        ({"parallel": None, "sequential": None}, "neither 'parallel' nor 'sequential' holds an answer"),
        ({"sequential": "  "}, "column 'sequential': must be a text"),
        ({"parallel": ["a"]}, "column 'parallel': must be a text"),
        ({"parallel": BLOCK.replace("</Parallel>", "")}, "the block opened at token 0 is not closed"),
        ({"parallel": "x" + BLOCK.replace("</Path>", "", 1)}, "<Path> is not expected in a path at character"),
        ({"parallel": answer("a")}, "the block at character 0 can't be forked (single_outline)"),
        ({"parallel": BLOCK.replace("<Path>\n2: b\n</Path>\n", "")}, "has 2 outlines but 1 paths"),
        ({"parallel": BLOCK.replace("<Path>\n2:", "<Path>\n3:")}, "has outlines 1, 2 but paths 1, 3"),
        ({"parallel": BLOCK.replace("\n2:", "\n1:")}, "has outlines 1, 2 but paths 1, 1"),
        (
            {"parallel": BLOCK.replace("</Path>\n<Path>", "</Path>\nFirst done.\n<Path>")},
            f"'parallel': at character {BLOCK.index('</Path>') + 7} stands '\\nFirst done.\\n' between the parts",
        ),
        ({"parallel": BLOCK.replace("</Goal>", "</Goal>\nNow go.")}, "stands '\\nNow go.\\n' between the parts"),
        ({"parallel": BLOCK.replace("<Conclusion>", "\n<Conclusion>")}, "stands '\\n\\n' between the parts"),
    ],
)
def test_a_broken_row_is_reported_with_place_name_and_reason(change: dict[str, Any], reason: str) -> None:
    found = check(GOOD | change, "data.jsonl:12", DIALECT)
    assert isinstance(found, Problem)
    assert str(found).startswith("data.jsonl:12 (g): ")
    assert reason in found.reason


def test_rows_of_a_file_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d.jsonl", [GOOD, "", "{broken", "[1]", GOOD | {"parallel": "<Path>"}])
    found = list(read(path, DIALECT))
    assert [place.rpartition(":")[2] for place, _ in found] == ["1", "3", "4", "5"]
    assert [type(item) for _, item in found] == [Example, Problem, Problem, Problem]
    assert "is not JSON" in str(found[1][1])
    assert "must be a JSON object, is list" in str(found[2][1])


def test_parquet_files_and_saved_datasets_hold_the_same_examples(tmp_path: Path) -> None:
    import datasets

    rows = [GOOD | {"answer": "5"}, {"id": "h", "question": "What?", "sequential": "that"}]
    expected = [item for _, item in read(write_rows(tmp_path / "d.jsonl", rows), DIALECT)]
    data = datasets.Dataset.from_list(rows)
    data.to_parquet(str(tmp_path / "d.parquet"))
    data.save_to_disk(str(tmp_path / "saved"))
    for source in ("d.parquet", "saved"):
        assert [item for _, item in read(tmp_path / source, DIALECT)] == expected


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"content": "18", "reasoning_content": BLOCK}, "turn 2: holds 'reasoning_content', which would not be learnt"),
        ({"content": "18", "reasoning": BLOCK}, "turn 2: holds 'reasoning'"),
        ({"content": "18", "tool_calls": [{"id": "x"}]}, "turn 2: holds 'tool_calls'"),
        ({"content": "18", "weight": 0}, "turn 2: holds 'weight'"),
        ({"content": [{"type": "image_url"}]}, "turn 2: holds a part of kind 'image_url'"),
        ({"content": [{"type": "text", "text": BLOCK}], "tool_calls": [], "reasoning": None}, None),
    ],
)
def test_nothing_that_a_turn_holds_is_dropped_silently(turn: dict[str, Any], reason: str | None) -> None:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant"} | turn]}
    found = check(row, "f:1", DIALECT)
    if reason is None:
        assert isinstance(found, Example)
        assert found.parallel == BLOCK
    else:
        assert isinstance(found, Problem)
        assert reason in found.reason


def test_turns_in_columns_and_an_answer_in_a_list_are_read() -> None:
    row = {"messages": {"role": ["user", "assistant"], "content": ["q", BLOCK]}, "answer": ["5"]}
    found = check(row, "f:1", DIALECT)
    assert found == Example("f:1", ({"role": "user", "content": "q"},), BLOCK, None, "5")


def test_a_list_a_byte_order_mark_and_odd_line_ends_change_nothing(tmp_path: Path) -> None:
    rows = [GOOD | {"question": "one\u2028two\u0085"}, GOOD | {"id": "h"}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "d.json").write_text(json.dumps(rows))
    expected = [check(row, "", DIALECT) for row in rows]
    for name in ("d.jsonl", "d.json"):
        assert [item for _, item in read(tmp_path / name, DIALECT)] == expected


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match=name):
        list(read(tmp_path / name, DIALECT))
