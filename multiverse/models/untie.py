"""A copy of a model whose output matrix is its own: ``python -m multiverse.models.untie MODEL OUT``.

It says the same. vLLM on CPUs packs the output matrix when it starts, and packs it again with new weights only if their
checkpoint holds one: a tied model would go on with the old one (docs/rl.md).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from multiverse.models import loading


def untie(model: str, out: Path) -> None:
    """Write the copy; its weights are float32."""
    import torch
    from safetensors.torch import save_file

    found: Any = loading.load_model(model, dtype=torch.float32)
    found.config.tie_word_embeddings = False
    out.mkdir(parents=True, exist_ok=True)
    found.config.save_pretrained(out)
    found.generation_config.save_pretrained(out)
    weights = {name: tensor.clone().contiguous() for name, tensor in found.state_dict().items()}
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    loading.save_tokenizer(loading.load_tokenizer(model), str(out))
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False


if __name__ == "__main__":
    untie(sys.argv[1], Path(sys.argv[2]))
