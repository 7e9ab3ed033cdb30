"""The embedded model's problems as training data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from multiverse import get_dialect
from multiverse.models import TINY
from multiverse.models.rows import main, rows
from multiverse.models.task import is_held_out
from multiverse.training.encode import Encoder
from multiverse.training.schema import Example, read

DIALECT = get_dialect("multiverse")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["rows", str(tmp_path), "--train", "40", "--held-out", "10"])
    main()
    return tmp_path


def examples(path: Path) -> list[Example]:
    found = [example for _, example in read(path, DIALECT)]
    good = [example for example in found if isinstance(example, Example)]
    assert len(good) == len(found)
    return good


def test_both_sides_of_the_split_are_examples_of_the_schema(written: Path) -> None:
    for name, count, held_out in (("train", 40, False), ("held_out", 10, True)):
        found = examples(written / f"{name}.jsonl")
        assert len(found) == count
        assert {is_held_out(example.messages[0]["content"]) for example in found} == {held_out}
        assert any(example.parallel != example.sequential for example in found)
        for example in found:
            assert example.text(parallel=True).endswith(f"Answer: {example.answer}")


def test_the_tokenizer_beside_them_is_that_of_the_embedded_model(written: Path) -> None:
    found, embedded = (AutoTokenizer.from_pretrained(str(path)) for path in (written, TINY))
    assert found.get_vocab() == embedded.get_vocab()
    assert found.chat_template == embedded.chat_template
    assert (found.eos_token, found.pad_token) == (embedded.eos_token, embedded.pad_token)


def test_they_are_encoded_as_they_are_asked_and_answered(written: Path) -> None:
    """No header differs from what an engine would write, else `encode` would refuse it."""
    tokenizer = AutoTokenizer.from_pretrained(str(written))
    encoder = Encoder(tokenizer, DIALECT)
    for example in examples(written / "train.jsonl"):
        encoded = encoder.encode(example)
        prompt = f"<|im_start|>user\n{example.messages[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(encoded.ids) == prompt + example.text(parallel=True) + "<|im_end|>"
        assert (encoded.layout.position_delta < 0) == (example.parallel != example.sequential)


def test_problems_grow_harder_over_the_share_that_is_asked_for() -> None:
    lengths = [len(str(row["parallel"])) for row in rows(400, seed=0, held_out=False, grow=0.5)]
    first, middle, last = (sum(part) for part in (lengths[:100], lengths[200:300], lengths[300:]))
    assert first < 0.8 * middle
    assert 0.8 < middle / last < 1.25
    full = [row["question"] for row in rows(5, seed=0, held_out=False)]
    assert full == [row["question"] for row in rows(5, seed=0, held_out=False, grow=0.01)], "nothing to grow over"
