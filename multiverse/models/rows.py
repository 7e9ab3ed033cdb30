"""The embedded model's problems as rows of the training schema: ``python -m multiverse.models.rows OUT``.

Writes ``train.jsonl`` and ``held_out.jsonl``, for `multiverse train` and what measures its result, and beside them the
embedded model's tokenizer, with which `recipes/tiny.yaml` begins.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from multiverse.models.task import HELD_OUT_SEED, generate
from multiverse.models.tokenizer import build_tokenizer


def rows(count: int, seed: int, held_out: bool, grow: float = 0.0) -> Iterator[dict[str, Any]]:
    """`count` problems of one side of the split, which get harder over the first `grow` of them, a share."""
    rng = Random(seed)
    for number in range(count):
        level = min(1.0, (number + 1) / (grow * count)) if grow else 1.0
        problem = generate(rng, level=level, held_out=held_out)
        yield {
            "id": f"{problem.kind}-{number}",
            "question": problem.prompt,
            "parallel": problem.parallel,
            "sequential": problem.sequential,
            "answer": problem.answer,
        }


def main() -> None:
    """Command line: write both sides of the split."""
    parser = argparse.ArgumentParser(prog="python -m multiverse.models.rows", description=__doc__)
    parser.add_argument("out", type=Path, help="directory of train.jsonl and held_out.jsonl")
    parser.add_argument("--train", type=int, default=300, help="problems to learn from (default: %(default)s)")
    parser.add_argument("--grow", type=float, default=0.0, help="share of them over which they grow to full difficulty")
    parser.add_argument("--held-out", type=int, default=100, help="problems to measure on (default: %(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sides = {
        "train": rows(options.train, 0, False, options.grow),
        "held_out": rows(options.held_out, HELD_OUT_SEED, True),
    }
    build_tokenizer().save_pretrained(options.out)
    for name, side in sides.items():
        (options.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in side), encoding="utf-8")


if __name__ == "__main__":
    main()
