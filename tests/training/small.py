"""A random model of two layers with the embedded model's tokenizer, examples, and a recipe that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from multiverse import get_dialect
from multiverse.models import TINY
from multiverse.models.serialise import write_block
from multiverse.training.encode import Encoder
from multiverse.training.schema import Example

torch.set_num_threads(1)
TOKENIZER = AutoTokenizer.from_pretrained(str(TINY))
DIALECT = get_dialect("multiverse")


def model(seed: int = 0, tied: bool = True) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.1,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=TOKENIZER.eos_token_id,
        pad_token_id=TOKENIZER.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def save_model(directory: Path) -> str:
    model().save_pretrained(directory)
    TOKENIZER.save_pretrained(directory)
    return str(directory)


def untagged_tokenizer() -> PreTrainedTokenizerFast:
    """The embedded model's tokenizer as it was before the tags came."""
    data = json.loads((TINY / "tokenizer.json").read_text())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in DIALECT.tags.values()]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(data)))
    tokenizer.eos_token, tokenizer.pad_token = TOKENIZER.eos_token, TOKENIZER.pad_token
    tokenizer.chat_template = TOKENIZER.chat_template
    return tokenizer


def encoder(**options: Any) -> Encoder:
    return Encoder(TOKENIZER, DIALECT, **options)


def answer(*paths: str, conclusion: str = "both") -> str:
    return write_block([(f"part {i}", path) for i, path in enumerate(paths)], conclusion) + "\nAnswer: 5"


def example(*paths: str, question: str = "A = sum 3 5. Find A.", sequential: str | None = "in turn") -> Example:
    return Example("x", ({"role": "user", "content": question},), answer(*paths), sequential, "5")


def write_rows(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)
