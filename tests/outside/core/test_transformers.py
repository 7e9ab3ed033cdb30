"""transformers: keys of RoPE, tokenizers, output matrices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from multiverse.models import TINY

RELEASE = ("transformers", "5.24.0")
LINE = "A = sum 12345 and 67.\n\n  Then: x"
ROPE: dict[str, dict[str, Any]] = {
    "dynamic": {"factor": 4.0},
    "longrope": {
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


def files(directory: Path, model_type: str, tokenizer_class: str) -> str:
    """The embedded model's tokenizer.json under another type and class."""
    directory.mkdir()
    shutil.copy(TINY / "tokenizer.json", directory)
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    return str(directory)


def saved(directory: Path, tied: bool) -> Path:
    """A random model of one layer; returns the file of its weights."""
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=tied,
    )
    Qwen3ForCausalLM(config).save_pretrained(directory)
    return directory / "model.safetensors"


@pytest.mark.contract(*RELEASE, ours="multiverse/serving/rope.py")
@pytest.mark.parametrize("kind", ROPE)
def test_keys_depend_on_the_longest_row_of_a_batch(kind: str) -> None:
    """Of one position, alone and in a batch whose other row lies beyond the original context."""
    longest = 32 if kind == "dynamic" else 128
    parameters = {"rope_type": kind, "rope_theta": 10000.0, **ROPE[kind]}
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=2, max_position_embeddings=longest, rope_parameters=parameters
    )
    alone = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.tensor([[5]]))[0]
    beside = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.tensor([[5], [100]]))[0]
    assert (alone[0] - beside[0]).abs().max() > 0.1


@pytest.mark.contract(*RELEASE, ours="multiverse/models/loading.py")
@pytest.mark.parametrize(
    ("model_type", "tokenizer_class", "follows"),
    [
        ("qwen3", "PreTrainedTokenizerFast", True),
        ("qwen3", "Qwen2Tokenizer", False),
        ("llama", "PreTrainedTokenizerFast", True),
        ("llama", "Qwen2Tokenizer", False),
        ("qwen2", "PreTrainedTokenizerFast", False),
    ],
)
def test_the_class_of_a_tokenizer_wins_over_its_file_and_qwen2_over_the_class(
    model_type: str, tokenizer_class: str, follows: bool, tmp_path: Path
) -> None:
    name = files(tmp_path / "t", model_type, tokenizer_class)
    by_file = Tokenizer.from_file(f"{name}/tokenizer.json").encode(LINE, add_special_tokens=False).ids
    found = AutoTokenizer.from_pretrained(name)
    assert (found.encode(LINE, add_special_tokens=False) == by_file) is follows


@pytest.mark.contract(*RELEASE, ours="multiverse/models/loading.py")
def test_a_missing_output_matrix_is_random_and_only_reported(tmp_path: Path) -> None:
    weights = saved(tmp_path, tied=False)
    kept = {name: tensor for name, tensor in load_file(weights).items() if name != "lm_head.weight"}
    save_file(kept, weights, metadata={"format": "pt"})
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"lm_head.weight"}
    assert not torch.equal(model.lm_head.weight, AutoModelForCausalLM.from_pretrained(tmp_path).lm_head.weight)


@pytest.mark.contract(*RELEASE, ours="multiverse/models/loading.py")
def test_another_output_matrix_in_the_files_of_a_tied_model_is_used(tmp_path: Path) -> None:
    """vLLM leaves it out, so what is trained and what is served would differ."""
    weights = saved(tmp_path, tied=True)
    rows = load_file(weights)
    save_file(rows | {"lm_head.weight": rows["model.embed_tokens.weight"] + 1}, weights, metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.tie_word_embeddings
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight + 1)


@pytest.mark.contract(*RELEASE, ours="multiverse/commands/parse.py")
def test_qwens_pre_tokenizer_merges_a_newline_with_the_mark_before_it() -> None:
    """So a branch that begins with a newline behind `1:` is encoded to other ids than it was decoded with."""
    cut = Qwen2Tokenizer(vocab={}, merges=[]).backend_tokenizer.pre_tokenizer
    pieces = [piece for piece, _ in cut.pre_tokenize_str("1:\nx")]
    assert pieces == ["1", ":Ċ", "x"]


@pytest.mark.contract(*RELEASE, ours="multiverse/structure/binding.py")
def test_tags_that_are_special_tokens_vanish_with_them() -> None:
    raw = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    raw.add_special_tokens([AddedToken("<Path>", special=True)])
    raw.add_tokens([AddedToken("<Goal>", special=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    ids = tokenizer.encode("<Path>a<Goal>")
    assert tokenizer.decode(ids).split() == ["<Path>", "a", "<Goal>"]
    assert tokenizer.decode(ids, skip_special_tokens=True).split() == ["a", "<Goal>"]
