"""What SGLang's scheduler spends on a fork and on a join beside forwards: `python benchmarks/sglang_turns.py`.

Answers of a forced shape, one at a time, step by step, all branches of the same length. What lies between two forwards
is the scheduler's; a decode step has some of it anyway, which is subtracted. The forwards that compute the last tags of
who forks or closes and the headers of who starts are told beside it. CPU time of the scheduler's thread, so other work
on the machine does little harm. Set PYTHONPATH to tests/conformance; `make bench-sglang-turns` does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from machine import facts
from sglang_host import SGLangHost
from transformers import AutoTokenizer

from multiverse import bind, detect
from multiverse.evaluation.bench.traffic import Words

RESULTS = Path(__file__).parent / "results" / "sglang_turns.json"
BEFORE, LENGTH, AFTER, PROMPT = 8, 24, 8, 64
Forward = tuple[bool, int, float, float]


def turns(forwards: Sequence[Forward]) -> dict[str, float]:
    """Milliseconds of a decode step, and of the two turns of one answer: the scheduler's own, and its forwards."""
    gaps = [later[2] - earlier[3] for earlier, later in pairwise(forwards)]
    decoded = [i for i in range(1, len(forwards)) if not forwards[i][0] and not forwards[i - 1][0]]
    usual = median(gaps[i - 1] for i in decoded)
    groups: list[list[int]] = []
    for i in range(1, len(forwards)):
        if forwards[i][0] and not forwards[i - 1][0]:
            groups.append([])
        if groups and (forwards[i][0] or forwards[i - 1][0]):
            groups[-1].append(i)  # the extends, and the decode step that they lead to
    fork, join = groups
    found = {"step": median(forwards[i][3] - forwards[i][2] for i in decoded) + usual}
    for name, group in (("fork", fork), ("join", join)):
        found[name] = sum(gaps[i - 1] for i in group) - usual
        found[f"{name}, forwards"] = sum(forwards[i][3] - forwards[i][2] for i in group if forwards[i][0])
    return {name: 1000 * value for name, value in found.items()}


def measure(host: SGLangHost, words: Words, width: int, repeats: int) -> dict[str, Any]:
    """Medians over `repeats` answers with new prompts; the first is not counted."""
    bias, rng, found = dict.fromkeys(words.banned, -100.0), Random(width), []
    shape = [BEFORE, [[LENGTH]] * width, AFTER]
    for _ in range(repeats + 1):
        prompt = [rng.choice(words.ordinary) for _ in range(PROMPT)]
        host.forwards()
        options = {"multiverse": {"shape": shape}, "logit_bias": bias, "ignore_eos": True}
        (answer,) = host.generate([prompt], max_tokens=3000, **options)
        assert answer.record is not None
        assert answer.record["branches"] == width, answer.record
        found.append(turns([forward for forward in host.forwards() if forward[1]]))
    middle = {name: round(median(one[name] for one in found[1:]), 2) for name in found[0]}
    shares = {f"{name} / step": round(middle[name] / middle["step"], 3) for name in ("fork", "join")}
    return {"branches": width, "ms": middle, **shares}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="build/random-47m", help="see random_model.py")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    words = Words.of(tokenizer, bind(detect(tokenizer), tokenizer))
    host = SGLangHost(options.model, late=False, settings={"context_length": 4096}, shapes="accept")
    rows = [measure(host, words, width, options.repeats) for width in (4, 8, 32)]
    for row in rows:
        print(row)
    RESULTS.write_text(json.dumps({"machine": facts(), "float32, step by step": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
