"""A program forks and joins: branches are computed apart and joined on KV, nothing is prefilled again.

    sglang serve --model-path MODEL --plugin multiverse --page-size 1 --port 30000
    python examples/sglang_program_driven.py --url http://127.0.0.1:30000

`MODEL` needs the tags of a dialect in its tokenizer, but need not use them. The program is what SGLang's front end
always offered; only the backend is this project's, since SGLang's own does not tell the server which branch makes a
request.
"""

from __future__ import annotations

import argparse
from typing import Any

import sglang as sgl

from multiverse_sglang.programs import RuntimeEndpoint

DOCUMENTS = [
    "Ann keeps 3 bees in a red box and sells the honey on Mondays.",
    "Ben has no bees. He keeps 4 hens, and the eggs are for his mother.",
    "Cleo had 7 hens and gave 2 of them to Ben last week.",
]


@sgl.function  # type: ignore[untyped-decorator]
def answer(s: Any, documents: list[str], question: str) -> None:
    s += "Read these notes.\n"

    notes = s.fork(len(documents))  # encoded side by side; no note sees another
    notes += lambda i: f"Note {i + 1}: {documents[i]}\n"
    notes.join(mode="concate_and_append")

    s += f"Question: {question}\n"

    views = s.fork(2)  # decoded side by side, behind the notes
    views += lambda i: ("A short answer:", "What speaks against it:")[i]
    views += sgl.gen("view", max_tokens=24, temperature=0, stop="\n")
    views += lambda _: "\n"
    views.join(mode="concate_and_append")

    s += "In one sentence:" + sgl.gen("summary", max_tokens=32, temperature=0, stop="\n")


def main(url: str, question: str) -> None:
    state = answer.run(DOCUMENTS, question, backend=RuntimeEndpoint(url))
    print(state.text())
    info = state.get_meta_info("summary")
    new = info["prompt_tokens"] - info["cached_tokens"]
    print(f"\nOf a prompt of {info['prompt_tokens']} tokens, {new} were computed for the last call.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:30000", help="where the server is")
    parser.add_argument("--question", default="How many hens does Ben have now?")
    arguments = parser.parse_args()
    main(arguments.url, arguments.question)
