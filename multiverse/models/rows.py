"""The embedded model's problems as rows of the training schema: ``python -m multiverse.models.rows OUT``.

Writes ``train.jsonl`` and ``held_out.jsonl``, for `multiverse train` and what measures its result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from multiverse.models.task import HELD_OUT_SEED, stream


def rows(count: int, seed: int, held_out: bool) -> Iterator[dict[str, Any]]:
    """`count` problems of one side of the split, full-sized."""
    for number, problem in enumerate(islice(stream(seed, held_out), count)):
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
    parser.add_argument("--held-out", type=int, default=100, help="problems to measure on (default: %(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sides = {"train": rows(options.train, 0, False), "held_out": rows(options.held_out, HELD_OUT_SEED, True)}
    for name, side in sides.items():
        (options.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in side), encoding="utf-8")


if __name__ == "__main__":
    main()
