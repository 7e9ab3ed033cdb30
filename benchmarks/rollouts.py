"""Rollouts of a server whose weights change under it: what it reported against what a training forward says.

The host that is installed here serves the embedded model. Groups of answers to one prompt are asked for over HTTP with
temperatures, streamed and not, half of them as the model likes, half in a given shape with blocks in each other. In the
middle of each round other weights of the same form come several times (random ones, sharp enough that a wrong position
or a wrong mask shows, and the embedded model's again), and all trees are computed again. Every sampled token is then
rated by the training forward of the weights that its rollout says. Exits with 1 if one of them is not within 1e-4, if
an answer was aborted or names weights that nobody gave, if the plugin's books were ever wrong, if anything is left over
in the end, or if fewer than a tenth of the answers nest or were said under several versions. `--record` writes
rollout_logprob_max_difference_HOST to figures.json and, once both hosts have theirs, the larger one as
rollout_logprob_max_difference.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from figures import FIGURES, keep, record
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from multiverse import bind
from multiverse.harness.server import HOSTS, Server, command, free_port, installed
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.models.untie import untie
from multiverse.oracle import load
from multiverse.stress.gauges import Gauges, read_gauges
from multiverse.training.grpo.served import Served
from multiverse.training.rollouts import Reader, Rollout, to_row
from multiverse.training.rollouts.batch import mismatch

NAME = "rollout_logprob_max_difference"
TOLERANCE = 1e-4
GROUP = 4
GROUPS = 10
"""Requests of a round, at the same time."""
UPDATES_AT_ONCE = 10
"""In a round at most."""
SHAPES = ([4, [[24], [8, [[8], [12], [4]], 4], [16]], 12], [8, [[6], [30]], 4, [[9], [5], [7]], 6], [40])
ARGUMENTS = {"vllm": ("--logprobs-mode", "processed_logprobs"), "sglang": ()}
"""What makes a host report the log-probabilities that it sampled from."""


def checkpoints(folder: Path) -> dict[str, Any]:
    """The embedded model and one of its form with random weights, by the paths of their checkpoints in `folder`.

    Both have an output matrix of their own: see `multiverse.models.untie`.
    """
    tiny, other = folder / "tiny", folder / "random"
    untie(str(TINY), tiny)
    config = AutoConfig.from_pretrained(tiny, initializer_range=0.2)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(other)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(other)
    return {str(path): load(str(path))[0] for path in (tiny, other)}


@dataclass
class Trainer:
    """Asks a server for rollouts, and gives it weights.

    Attributes:
        server: with the embedded model's form.
        seen: requests so far, of which each has another seed.
        updates: how often weights came while answers were decoded.
    """

    server: Served
    tokenizer: Any
    seen: int = field(default=0, init=False)
    updates: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.binding = bind("multiverse", self.tokenizer)

    def rollouts(self, prompt: Sequence[int], temperature: float, stream: bool, **options: Any) -> list[Rollout]:
        """A group of answers."""
        self.seen += 1
        body = {"prompt": list(prompt), "temperature": temperature, "seed": self.seen, "n": GROUP, "max_tokens": 160}
        answer = self.server.text("/v1/completions", self.server.body(**body | {"stream": stream} | options))
        reader = Reader(self.binding, temperature)
        if not stream:
            return reader.response(json.loads(answer))
        lines = [line.removeprefix("data: ") for line in answer.split("\n") if line.startswith("data: {")]
        return reader.chunks(map(json.loads, lines))

    def load(self, path: str) -> None:
        """Give the server the weights of a checkpoint, which are called by its path."""
        self.server.load(path, path)

    def round(self, number: int, middle: Iterable[str | None]) -> list[Rollout]:
        """One group for each of many prompts. While they are decoded, one after the other of `middle` is done: the
        weights of that path come, or all trees are computed again."""
        rng = Random(number)
        with ThreadPoolExecutor(GROUPS) as pool:
            asked = []
            for at in range(GROUPS):
                kind = rng.choice(("flat", "nested", "single", "chain"))
                prompt = self.tokenizer.encode(turn(generate(rng, kind, held_out=True)))
                shape = SHAPES[(number + at // 2) % len(SHAPES)]
                shaped = {"ignore_eos": True, "max_tokens": 400, "multiverse": {"shape": shape}}
                options = shaped if at % 2 else {}
                asked.append(pool.submit(self.rollouts, prompt, rng.choice((0.7, 1.0, 1.6)), at % 4 < 2, **options))
            for path in middle:
                time.sleep(rng.uniform(0.2, 0.8))
                if all(group.done() for group in asked):
                    break
                if path is None:
                    self.server.replay()
                else:
                    self.load(path)
                    self.updates += 1
            return [rollout for group in asked for rollout in group.result()]


def collect(trainer: Trainer, paths: Sequence[str], count: int, updates: int) -> Iterator[Rollout]:
    """At least `count` rollouts, with at least so many `updates` in the middle of them."""
    trainer.load(paths[0])
    following, number, found = cycle([*paths[1:], paths[0]]), 0, 0
    while found < count or trainer.updates < updates:
        left = max(1, -(-(count - found) // (GROUPS * GROUP)))
        each = min(UPDATES_AT_ONCE, max(1, -(-(updates - trainer.updates) // left)))
        rollouts = trainer.round(number, [*([None] * (number % 2)), *islice(following, each)])
        number, found = number + 1, found + len(rollouts)
        print(f"{found} rollouts, {trainer.updates} updates", file=sys.stderr, flush=True)
        yield from rollouts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=200, help="of weights, in their middle (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the figure")
    arguments = parser.parse_args()
    host, port = next(host for host in HOSTS if installed(host)), free_port()
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        models = checkpoints(Path(folder))
        served = next(iter(models))
        extra = ["--served-model-name", "tiny", "--multiverse-shapes", "accept", *ARGUMENTS[host]]
        with Server(command(host, served, port, extra), port) as server:
            server.wait(600)
            trainer = Trainer(Served(server.url, host), load(str(TINY))[1])
            found = list(collect(trainer, list(models), arguments.rollouts, arguments.updates))
            trainer.load(served)  # what is in use then is lost
            rest = at_rest(server.url)
        worst = {path: mismatch(model, found, path) for path, model in models.items()}
    figures = summary(found, models, rest) | {"updates": trainer.updates, NAME: max(worst.values())}
    print(json.dumps({"host": host, **figures}))
    if arguments.record:
        keep("rollouts", host, figures, f"make rollouts HOST={host}")
        note(host, max(worst.values()))
    return int(not holds(figures))


def summary(found: list[Rollout], models: Mapping[str, Any], rest: Gauges) -> dict[str, float]:
    """How many rollouts there are and of which kinds, and what is wrong with them or left over in the end."""
    ends, told = ("stop", "length"), [set(one.document("versions")) for one in found]
    return {
        "rollouts": len(found),
        "flat": sum(len(one.strands) == 1 for one in found),
        "nested": sum(any(len(strand.key) > 2 for strand in one.strands) for one in found),
        "of several versions": sum(len(each) > 1 for each in told),
        "tokens": sum(len(to_row(one).predictions) for one in found),
        "aborted": sum(one.finish_reason not in ends for one in found),
        "of unknown weights": sum(not each <= models.keys() for each in told),
        "integrity failures": rest.integrity_failures,
        "left running": rest.running + rest.waiting + rest.branches + rest.parked,
        "KV in use at the end": rest.kv_usage,
    }


def holds(figures: Mapping[str, float]) -> bool:
    """Whether that is what was promised."""
    nothing = ("aborted", "of unknown weights", "integrity failures", "left running", "KV in use at the end")
    many = [figures[name] > figures["rollouts"] / 10 for name in ("nested", "of several versions")]
    return figures[NAME] < TOLERANCE and not any(figures[name] for name in nothing) and all(many)


def at_rest(url: str) -> Gauges:
    """What the server says once it is idle, or after a while: hosts write their gauges now and then."""
    for _ in range(20):
        found = read_gauges(url)
        if found.idle and not found.kv_usage:
            break
        time.sleep(1)
    return found


def note(host: str, worst: float) -> None:
    """Write what this host deserves, and the larger of both once both are there."""
    record(f"{NAME}_{host}", worst, f"make rollouts HOST={host}")
    figures = json.loads(FIGURES.read_text())
    both = [figures[f"{NAME}_{each}"]["value"] for each in HOSTS if f"{NAME}_{each}" in figures]
    if len(both) == len(HOSTS):
        record(NAME, max(both), "make rollouts, for both hosts")


if __name__ == "__main__":
    sys.exit(main())
