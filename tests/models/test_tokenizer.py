"""The embedded model's tokenizer: tags are tokens, headers stay what an engine writes, nothing is lost."""

from __future__ import annotations

from random import Random

import pytest
from transformers import PreTrainedTokenizerFast

from multiverse import Controller, bind
from multiverse.decoding.stream import BranchEvent
from multiverse.models.task import generate
from multiverse.models.tokenizer import TAGS, TURN_END, TURN_START, build_tokenizer, turn
from multiverse.serving.stops import Stops, StopSearch
from multiverse.wire.events import EventWriter


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(examples=300)


def test_every_tag_is_one_token_that_skipping_special_tokens_keeps(tokenizer: PreTrainedTokenizerFast) -> None:
    for tag in TAGS:
        ids = tokenizer(tag)["input_ids"]
        assert len(ids) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == tag


@pytest.mark.parametrize("label", ["1", "6", "1.2", "3.3"])
def test_what_the_engine_writes_is_a_prefix_of_what_the_model_saw(
    tokenizer: PreTrainedTokenizerFast, label: str
) -> None:
    for rest in (" A = sum 3 5", " P = max A B\n<Parallel>"):
        header = tokenizer(f"\n{label}:")["input_ids"]
        assert tokenizer(f"\n{label}:{rest}")["input_ids"][: len(header)] == header


def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = Random(0)
    for _ in range(100):
        problem = generate(rng)
        text = turn(problem) + problem.parallel + TURN_END
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_stop_string_of_special_tokens_is_found_whether_they_are_shown_or_not(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """SEMANTICS 4. Text without special tokens has nothing of it."""
    binding = bind("multiverse", tokenizer)
    (token,) = tokenizer.encode(TURN_START)
    assert tokenizer.decode([token], skip_special_tokens=True) == ""
    found = StopSearch(Stops((TURN_START,)), binding).feed(Controller(binding).root, token)
    assert found is not None
    assert found.string == TURN_START


def test_events_show_nothing_of_ids_beyond_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    """Models have more rows than their tokenizer has tokens; an id of such a row counts as a token and has no text."""
    word, beyond = tokenizer.encode("sum é", add_special_tokens=False), len(tokenizer) + 5
    writer = EventWriter(tokenizer)
    given = [(beyond,), (word[0], beyond), tuple(word[1:]), (beyond, beyond)]
    deltas = list(writer.write(BranchEvent("delta", (), "", tokens) for tokens in given))
    deltas += writer.write([BranchEvent("finish", (), "", reason="stop")])
    assert "".join(event.text for event in deltas) == "sum é"
    assert sum(event.tokens for event in deltas) == len(word) + 4
