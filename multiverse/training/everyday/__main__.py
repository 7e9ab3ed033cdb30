"""Command line: `python -m multiverse.training.everyday OUT` writes both sides of the split."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from multiverse.training import everyday
from multiverse.training.everyday import problems


def main() -> None:
    """Command line: write both sides of the split."""
    parser = argparse.ArgumentParser(prog="python -m multiverse.training.everyday", description=everyday.__doc__)
    parser.add_argument("out", type=Path, help="directory of train.jsonl and held_out.jsonl")
    parser.add_argument("--train", type=int, default=1000, help="problems to learn from (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=200, help="problems to measure on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, count, held_out in (("train", options.train, False), ("held_out", options.held_out, True)):
        drawn = islice(problems(options.seed, held_out), count)
        rows = (json.dumps(problem.row(i), ensure_ascii=False) for i, problem in enumerate(drawn))
        (options.out / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
