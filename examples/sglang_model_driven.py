"""A model forks, a program of SGLang's front end only asks: `s += sgl.gen(...)`, and then the tree of the answer.

sglang serve --model-path multiverse/models/tiny --plugin multiverse --page-size 1 --port 30000
python examples/sglang_model_driven.py --url http://127.0.0.1:30000
"""

from __future__ import annotations

import argparse
from random import Random
from typing import Any

import sglang as sgl

from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.structure.tree import Block
from multiverse_sglang.programs import RuntimeEndpoint, record, transcript


@sgl.function  # type: ignore[untyped-decorator]
def solve(s: Any, question: str) -> None:
    s += question
    s += sgl.gen("answer", max_tokens=900, temperature=0)


def show(block: Block, pieces: list[str]) -> None:
    """Print the branches of a block, those inside of them indented."""
    for path in block.paths:
        text = " ".join("".join(pieces[path.start : path.end]).split())
        print(f"{'  ' * block.depth}branch {path.label}: {text[:90]}")
        for inner in path.blocks:
            show(inner, pieces)


def main(url: str, questions: list[str]) -> None:
    backend = RuntimeEndpoint(url)
    states = solve.run_batch([{"question": question} for question in questions], backend=backend)
    for state in states:
        tree, figures = transcript(state, "answer"), record(state, "answer")
        print(state.text())
        for block in tree.blocks:
            show(block, [str(token) for token in tree.tokens])
        if figures is not None:
            print(f"{figures['tokens']} tokens on a critical path of {figures['critical_path_tokens']}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:30000", help="where the server is")
    parser.add_argument(
        "--prompt", help="a whole prompt, chat template and all (default: problems of the embedded model)"
    )
    arguments = parser.parse_args()
    random = Random(1)
    drawn = [turn(generate(random, "flat", held_out=True)), turn(generate(random, "nested", held_out=True))]
    main(arguments.url, [arguments.prompt] if arguments.prompt else drawn)
