"""A model that writes NPR's tags: nothing to configure, the dialect is found in its tokenizer. Usage: npr_model.py

NPR's blocks have no tag around them and don't nest. In place of NPR-4B, a stand-in (retag.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from retag import retag
from vllm import LLM, SamplingParams

import multiverse_vllm
from multiverse import get_dialect

QUESTIONS = {
    "flat": "A = sum 3 5 2 7 1; B = max 4 1 9 2 6. Find sum A B.",
    "nested": "A = sum 3 5 2 7 1; B = max 4 1 9 2 6; C = min 8 6 7 9 5; D = sum 1 2 3 4 5. "
    "Find sum ( max A B ) ( sum C D ).",
}


def main() -> None:
    multiverse_vllm.enable()
    with tempfile.TemporaryDirectory() as folder:
        unused = {"<Parallel>": "<think>", "</Parallel>": "</think>"}
        model = retag(Path(folder, "npr"), get_dialect("npr"), unused)
        llm = LLM(str(model), dtype="float32", max_model_len=1024, enforce_eager=True)
        sampling = SamplingParams(temperature=0, max_tokens=900)
        for name, question in QUESTIONS.items():
            choice = llm.chat([{"role": "user", "content": question}], sampling, use_tqdm=False)[0].outputs[0]
            print(f"== {name}: {question}\n{choice.text}\n{choice.multiverse}")


if __name__ == "__main__":  # vLLM starts processes that import this file
    main()
