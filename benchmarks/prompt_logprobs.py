"""SEMANTICS 6 over HTTP: scores of transcripts with blocks by the host that is installed here, against the oracle.

A model with random weights and the embedded model's tokenizer is served with the plugin, in float32. Each document, a
question, its answer in blocks and the next question, goes to /v1/completions as token ids with `echo` and `logprobs`,
twice: the second time it is in the prefix cache. Exits with 1 if an entry is not within 1e-4 of the oracle's, if a list
does not fit or if a request is refused. `--record` writes prompt_logprobs_max_difference_HOST to
benchmarks/results/figures.json and, once both hosts have theirs, the larger one as prompt_logprobs_max_difference.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from figures import FIGURES, record
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from multiverse import bind, parse_ids
from multiverse.harness.server import HOSTS, Server, command, free_port, installed
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import load, rate
from multiverse.structure.layout import layout

NAME = "prompt_logprobs_max_difference"
TOLERANCE = 1e-4
LONGEST = 1000
"""Tokens of a document; the server's context has 1024."""


def make_model(path: Path) -> None:
    """Four layers of random weights, sharp enough that a wrong position or a wrong mask shows."""
    config = AutoConfig.from_pretrained(TINY, initializer_range=0.2)
    config.num_hidden_layers, config.layer_types = 4, config.layer_types[:4]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(path)


def documents(tokenizer: Any, count: int) -> Iterator[list[int]]:
    """Two solved problems, the first of them in blocks, and a third that is asked."""
    rng = Random(5)
    while count:
        kinds = [rng.choice(("flat", "nested", "chain")), "single", rng.choice(("flat", "nested"))]
        solved = [generate(rng, kind, held_out=True) for kind in kinds]  # type: ignore[arg-type]
        text = "".join(turn(problem) + problem.parallel + "<|im_end|>\n" for problem in solved[:2]) + turn(solved[2])
        ids = tokenizer.encode(text)
        if len(ids) <= LONGEST:
            count -= 1
            yield ids


def score(url: str, ids: list[int]) -> list[float | None]:
    """What the server says of each token of a prompt."""
    body = {"model": "m", "prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        found: list[float | None] = json.load(answer)["choices"][0]["logprobs"]["token_logprobs"]
    assert len(found) == len(ids) + 1, f"{len(found)} entries for {len(ids)} tokens and one that was generated"
    return found[:-1]


def difference(found: list[float | None], expected: list[float]) -> float:
    """The largest one; infinite if an entry is there and should not be, or the other way round."""
    pairs = list(zip(found, expected, strict=True))
    if any((value is None) is not math.isnan(right) for value, right in pairs):
        return math.inf
    return max(abs(value - right) for value, right in pairs if value is not None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcripts", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the figure")
    arguments = parser.parse_args()
    host = next(host for host in HOSTS if installed(host))
    torch.set_num_threads(1)
    worst = holes = tokens = 0.0
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        model, tokenizer = load(folder)
        binding, port = bind("multiverse", tokenizer), free_port()
        with Server(command(host, folder, port, ["--served-model-name", "m"]), port) as server:
            server.wait(600)
            for ids in documents(tokenizer, arguments.transcripts):
                expected = rate(model, ids, layout(parse_ids(ids, binding)))
                holes, tokens = holes + sum(map(math.isnan, expected)), tokens + len(ids)
                for _ in range(2):
                    worst = max(worst, difference(score(server.url, ids), expected))
    counts = {"transcripts": arguments.transcripts, "tokens": int(tokens), "without_score": int(holes)}
    print(json.dumps({"host": host, NAME: worst, **counts}))
    if arguments.record:
        keep(host, worst)
    return int(not worst < TOLERANCE)


def keep(host: str, worst: float) -> None:
    """Write what this host deserves, and the larger of both once both are there."""
    record(f"{NAME}_{host}", worst, f".venvs/{host}/bin/python benchmarks/prompt_logprobs.py --record")
    figures = json.loads(FIGURES.read_text())
    both = [figures[f"{NAME}_{each}"]["value"] for each in HOSTS if f"{NAME}_{each}" in figures]
    if len(both) == len(HOSTS):
        record(NAME, max(both), "benchmarks/prompt_logprobs.py --record in both environments")


if __name__ == "__main__":
    sys.exit(main())
