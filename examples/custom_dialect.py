"""Tags of your own: a TOML file names them. Usage: custom_dialect.py

With a server: vllm serve MODEL --plugin multiverse --multiverse-dialect custom_dialect.toml
The model here is a stand-in (retag.py).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from retag import retag
from vllm import LLM, SamplingParams

import multiverse_vllm
from multiverse import load_dialect, parse_text

DIALECT = Path(__file__).with_name("custom_dialect.toml")
QUESTION = "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B."


def main() -> None:
    os.environ["MULTIVERSE_DIALECT"] = str(DIALECT)  # a server takes the flag --multiverse-dialect
    multiverse_vllm.enable()
    dialect = load_dialect(DIALECT)
    with tempfile.TemporaryDirectory() as folder:
        llm = LLM(str(retag(Path(folder, "tasks"), dialect)), dtype="float32", max_model_len=1024, enforce_eager=True)
        sampling = SamplingParams(temperature=0, max_tokens=900)
        choice = llm.chat([{"role": "user", "content": QUESTION}], sampling, use_tqdm=False)[0].outputs[0]
    tree = parse_text(choice.text, dialect)
    print(choice.text)
    print(f"{choice.multiverse['branches']} branches were decoded in parallel; well formed: {tree.well_formed}")


if __name__ == "__main__":  # vLLM starts processes that import this file
    main()
