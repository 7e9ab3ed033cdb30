"""Write a random Qwen3 with the embedded model's tokenizer: `random_model.py DIR --hidden 512 --layers 12`.

What is timed with it doesn't depend on its words. Prints the number of parameters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from multiverse.models import TINY


def make_model(path: Path, hidden: int = 768, layers: int = 14, positions: int = 4096) -> int:
    """Write a model in bfloat16 to `path`; returns the number of its parameters. Heads are 64 wide, a third for KV."""
    config = AutoConfig.from_pretrained(TINY)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = hidden, 3 * hidden, layers
    config.num_attention_heads, config.num_key_value_heads = hidden // 64, hidden // 192
    config.max_position_embeddings = positions
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(path)
    return int(sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--hidden", type=int, default=768, help="a multiple of 192 (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=14, help="default: %(default)s")
    parser.add_argument("--positions", type=int, default=4096, help="that it may have (default: %(default)s)")
    arguments = parser.parse_args()
    print(make_model(arguments.path, arguments.hidden, arguments.layers, arguments.positions))
