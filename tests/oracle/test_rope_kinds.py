"""A splice keeps keys that were computed in other company: the oracle takes kinds of RoPE under which that is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from script import decode
from tiny_models import SIZE
from toy import block
from transformers import Qwen3Config, Qwen3ForCausalLM

from multiverse.errors import UnsupportedModelError
from multiverse.oracle import check
from multiverse.serving.rope import EXACT

ORIGINAL = 32
"""Positions of the context that the model was trained on, fewer than the documents have."""
ALL: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "llama3": {
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
    "dynamic": {"factor": 4.0},
    "longrope": {
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
}
DOCUMENT = ("a", block("abcdefgh" * 5, "cd" * 12, "e") + "fg")


def model(kind: str) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    longest = ORIGINAL if kind == "dynamic" else 4 * ORIGINAL
    rope = {"rope_type": kind, "rope_theta": 10000.0, **ALL[kind]}
    return Qwen3ForCausalLM(Qwen3Config(**{**SIZE, "max_position_embeddings": longest}, rope_parameters=rope)).eval()


def angles(kind: str, positions: list[int]) -> torch.Tensor:
    rope = model(kind).model.rotary_emb
    cos, _ = rope(torch.zeros(1, 1, 1), torch.tensor([positions]))
    return cos[0, 0]


@pytest.mark.parametrize("kind", ALL)
def test_what_is_called_exact_is_what_does_not_depend_on_company(kind: str) -> None:
    """What transformers makes of one position, alone and beside one past the original context."""
    same = torch.equal(angles(kind, [5]), angles(kind, [5, 3 * ORIGINAL]))
    assert same == (kind in EXACT)


@pytest.mark.parametrize("kind", sorted(EXACT))
def test_exact_kinds_agree_with_the_dense_forward(kind: str) -> None:
    made = model(kind)
    (transcript,) = decode(made, [DOCUMENT])
    assert len(transcript) > ORIGINAL
    result = check(transcript, made)
    assert result.max_difference <= 1e-4
    assert result.causal_difference > 0.1


@pytest.mark.parametrize("kind", sorted(ALL.keys() - EXACT))
def test_the_others_are_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"oracle does not work with RoPE of the kind '{kind}'"):
        decode(model(kind), [DOCUMENT])
