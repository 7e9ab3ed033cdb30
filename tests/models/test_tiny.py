"""The embedded checkpoint keeps its promises on problems it was not trained on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tiers import Sizes

from multiverse.models import TINY
from multiverse.models.evaluate import Outcome, decode, score, scores
from multiverse.models.task import HELD_OUT_SEED, WIDTHS, Problem, stream
from multiverse.models.tokenizer import turn
from multiverse.oracle import load
from multiverse.structure.binding import detect

SEED = HELD_OUT_SEED + 1  # not the seed of the model card, so that the bars are met twice


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load(str(TINY))


@pytest.fixture(scope="module")
def problems(sizes: Sizes) -> list[Problem]:
    return list(islice(stream(SEED), sizes.solved))


@pytest.fixture(scope="module")
def outcomes(tiny: tuple[Any, Any], problems: list[Problem]) -> list[Outcome]:
    return decode(*tiny, problems, batch=len(problems) // 2)


def test_the_checkpoint_is_small_and_needs_no_code_of_ours(tiny: tuple[Any, Any]) -> None:
    model, _ = tiny
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    assert type(model).__module__.startswith("transformers.")
    assert not hasattr(model.config, "auto_map")
    assert model.num_parameters() <= 4_000_000
    assert sum(Path(f).stat().st_size for f in TINY.iterdir()) < 8_000_000


def test_two_ranks_can_share_it(tiny: tuple[Any, Any]) -> None:
    config = tiny[0].config
    for size in (config.num_attention_heads, config.num_key_value_heads, config.vocab_size, config.intermediate_size):
        assert size % 2 == 0
    assert config.head_dim == 64


def test_the_tokenizer_brings_dialect_template_and_end_of_turn(tiny: tuple[Any, Any], problems: list[Problem]) -> None:
    model, tokenizer = tiny
    assert detect(tokenizer).name == "multiverse"
    message = {"role": "user", "content": problems[0].prompt}
    rendered = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    assert rendered == turn(problems[0])
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id


def test_answers_are_right(outcomes: list[Outcome]) -> None:
    assert score(outcomes).exact >= 0.95


def test_answers_are_right_at_every_width_and_nested(outcomes: list[Outcome]) -> None:
    found = {g: s for g, s in scores(outcomes).items() if g.startswith("flat") or g == "nested"}
    assert set(found) == {"nested", *(f"flat {width}" for width in WIDTHS)}
    assert not {group: s.exact for group, s in found.items() if s.exact < 0.9}


def test_it_forks_when_it_should_and_writes_whole_blocks(outcomes: list[Outcome]) -> None:
    result = score(outcomes)
    assert result.fork_right >= 0.98
    assert result.well_formed is not None
    assert result.well_formed >= 0.99


def test_six_branches_shorten_the_critical_path(outcomes: list[Outcome]) -> None:
    assert scores(outcomes)["flat 6"].bound >= 2.5


def test_the_conclusion_reads_the_branches(tiny: tuple[Any, Any], problems: list[Problem]) -> None:
    """With the branches hidden from it, it cannot know the result."""
    worth_it = [p for p in problems if p.forks][:30]
    assert score(decode(*tiny, worth_it, "blinded", batch=30)).exact < 0.5
