"""Chains are read from every format the same, and what can't be read is reported with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chains import chain

from multiverse.curator import Chain, Problem, RunError, read_chains
from multiverse.curator.config import Fields, Input

RECORDS = [chain(number) for number in range(5)]
EXPECTED = [Chain(n, r["id"], r["question"], r["reasoning"], r["answer"]) for n, r in enumerate(RECORDS)]


def test_jsonl_parquet_and_datasets_give_the_same_chains(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(record) for record in RECORDS))
    data = datasets.Dataset.from_list(RECORDS)
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "plain")
    datasets.DatasetDict({"test": data}).save_to_disk(tmp_path / "split")
    for name in ("a.jsonl", "a.parquet", "plain"):
        assert list(read_chains(Input(path=str(tmp_path / name)))) == EXPECTED
    assert list(read_chains(Input(path=str(tmp_path / "split"), split="test"))) == EXPECTED


def test_columns_may_have_other_names_and_ids_may_be_missing(tmp_path: Path) -> None:
    record = {"q": "Why?", "thinking": "Because.", "gold": 42, "attempt": "So."}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) * 1)
    fields = Fields(question="q", reasoning="thinking", answer="gold", response="attempt")
    found = list(read_chains(Input(path=str(tmp_path / "a.jsonl"), fields=fields)))
    assert found == [Chain(0, "0", "Why?", "Because.", "42", "So.")]


def test_a_list_and_texts_alone_in_lists_are_read_and_longer_lists_are_refused(tmp_path: Path) -> None:
    """As s1K has them; a list must not become the text of a list."""
    record = {"question": "Why?\u2028", "reasoning": ["Because."], "answer": ["18"]}
    (tmp_path / "a.json").write_text(json.dumps([record, record | {"answer": ["1", "2"]}]))
    first, second = read_chains(Input(path=str(tmp_path / "a.json")))
    assert first == Chain(0, "0", "Why?", "Because.", "18")
    assert isinstance(second, Problem)
    assert "'answer' must hold one text or number, is ['1', '2']" in second.message


def test_broken_records_keep_their_place_and_do_not_stop_the_others(tmp_path: Path) -> None:
    good = json.dumps(RECORDS[0])
    (tmp_path / "a.jsonl").write_text(f'{good}\n{{"broken\n{{"id": 7, "question": ""}}\n{good}\n')
    first, broken, empty, last = read_chains(Input(path=str(tmp_path / "a.jsonl")))
    assert isinstance(broken, Problem)
    assert "a.jsonl:2 is not JSON" in broken.message
    assert isinstance(empty, Problem)
    assert (empty.id, empty.position) == ("7", 2)
    assert "'question' must hold text" in empty.message
    assert isinstance(first, Chain)
    assert isinstance(last, Chain)
    assert last.position == 3


@pytest.mark.parametrize(
    ("name", "reason"), [("no.jsonl", "can't be read"), ("no.parquet", "Parquet"), ("nowhere/at-all", "input.path")]
)
def test_an_input_that_is_not_there_is_named(name: str, reason: str, tmp_path: Path) -> None:
    path = name if "/" in name else str(tmp_path / name)
    with pytest.raises(RunError, match=reason):
        list(read_chains(Input(path=path)))
