"""Random operations inside a host: 2,000 requests, 64 at once, too little memory, clients that go away.

Every request that ends is compared with what the same request yields alone, every stream that is broken off with how
that begins; at the end nothing may be held by anybody. One kind of answer is compared less strictly and counted apart:
if a token budget runs out while several branches are open (see budget_cut), it has to be as long, and its branches have
to begin alike. The plugin runs as in tests/conformance (set PYTHONPATH to it) in whichever host is installed, with
synchronous scheduling or (`--late`) a step ahead. Adds its verdict to benchmarks/results/HOST_soak.json; exits with 1
if something is wrong. `make soak-vllm` and `make soak-sglang` run both.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from random import Random

from answer import Answer
from budget_cut import begin_alike, is_cut
from machine import facts
from soak_hosts import KINDS, VLLM, Client, SGLang, with_tree
from transformers import AutoTokenizer

from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn

RESULTS = Path(__file__).parent / "results"
PROMPTS, FOLLOW_UPS = 14, 4
"""Problems, and how many of them are asked again behind the answer to another, as the next turn of a conversation."""
ABORTED = 0.25
"""Share of the clients that go away, each after a random number of steps."""
PATIENCE = 3000
"""Steps without a token for anybody, after which the engine hangs."""
LOGPROB_TOLERANCE = 1e-3


class Soak:
    """Clients, their engine, and what became of them."""

    def __init__(self, engine: VLLM | SGLang, at_once: int, seed: int) -> None:
        self.engine, self.host, self.at_once, self.rng = engine, engine.host, at_once, Random(seed)
        self.kinds = [kind for kind in KINDS if engine.name == "vllm" or "n" not in kind.sampling]
        tokenizer = AutoTokenizer.from_pretrained(TINY)
        problems = [generate(self.rng, held_out=True) for _ in range(PROMPTS)]
        self.prompts = [list(tokenizer.encode(turn(problem))) for problem in problems]
        self.follow_up = list(tokenizer.encode("\n"))
        self.alone: dict[tuple[int, str], Answer] = {}
        self.cut: set[tuple[int, str]] = set()
        self.clients: dict[str, Client] = {}
        self.counts: Counter[str] = Counter()
        self.steps = self.quiet = self.recomputed = 0
        self.wrong: list[str] = []

    def undisturbed(self) -> None:
        """Ask for everything alone, one after the other."""
        for first, then in zip(self.prompts[:FOLLOW_UPS], self.prompts[-FOLLOW_UPS:], strict=True):
            answer = self.host.generate([first])[0].ids
            self.prompts.append(first + answer + self.follow_up + then)
        for prompt, ids in enumerate(self.prompts):
            for kind in self.kinds:
                if not kind.like:
                    (answer,) = self.host.generate([ids], **with_tree(kind.sampling))
                    self.alone[prompt, kind.name] = answer
                    if is_cut(answer, len(ids), kind.sampling.get("max_tokens", 800)):
                        self.cut.add((prompt, kind.name))

    def run(self, total: int) -> None:
        """Let `total` clients come and go."""
        started = 0
        while started < total or self.clients:
            while started < total and len(self.clients) < self.at_once and self.rng.random() < 0.5:
                self._come()
                started += 1
                if started % 200 == 0:
                    counters = self.host.counters()
                    print(f"{started} requests, {self.steps} steps, {counters['replays']} replays", flush=True)
            self._step()
            self._go()
            if self.quiet > PATIENCE:
                self.wrong.append(f"hang: no token in {self.quiet} steps, {len(self.clients)} clients wait")
                return

    def _come(self) -> None:
        (kind,) = self.rng.choices(self.kinds, [kind.weight for kind in self.kinds])
        leaves = self.steps + self.rng.randrange(500) if self.rng.random() < ABORTED else None
        client = Client(self.rng.randrange(len(self.prompts)), kind, leaves)
        self.clients[self.host.start(self.prompts[client.prompt], **with_tree(kind.sampling))] = client
        self.counts["asked: " + kind.name] += 1

    def _step(self) -> None:
        outputs = list(self.engine.step())
        self.steps += 1
        self.quiet = 0 if outputs else self.quiet + 1
        for output in outputs:
            if (client := self.clients.get(output.request)) is None:
                continue  # it went away, and this was on its way
            for index, (tokens, logprobs) in output.tokens.items():
                client.seen.setdefault(index, []).extend(tokens)
                client.logprobs += logprobs
            client.record = output.record or client.record
            if output.finished:
                self._finish(output.request, client)

    def _finish(self, name: str, client: Client) -> None:
        """Compare a finished request with the undisturbed one."""
        del self.clients[name]
        kind, expected = client.kind, self._expected(client)
        seen = [client.seen[index] for index in sorted(client.seen)]
        same = seen == [expected.ids] * kind.sampling.get("n", 1)
        self.counts["finished"] += 1
        self.counts["with blocks"] += bool(client.record and client.record["blocks"])
        if client.record:
            self.counts["replayed with blocks"] += client.record["recomputed_tokens"] > 0
            self.recomputed += client.record["recomputed_tokens"]
        if not kind.certain:
            self.counts["sampled as alone"] += same
        elif self._is_cut(client):
            self.counts["cut by a token budget"] += 1
            self.counts["cut by a token budget, split as alone"] += same
            if not same and not self._agrees(client, expected):
                self.wrong.append(
                    f"{name} ({kind.name}, prompt {client.prompt}), cut, got {seen}, alone {expected.ids}"
                )
        elif not same:
            self.wrong.append(f"{name} ({kind.name}, prompt {client.prompt}) got {seen}, alone {expected.ids}")
        if client.logprobs and expected.logprobs and same:
            difference = max(abs(a - b) for a, b in zip(client.logprobs, expected.logprobs, strict=True))
            if difference > LOGPROB_TOLERANCE:
                self.wrong.append(f"{name} ({kind.name}, prompt {client.prompt}): logprobs {difference} off")

    def _expected(self, client: Client) -> Answer:
        return self.alone[client.prompt, client.kind.like or client.kind.name]

    def _is_cut(self, client: Client) -> bool:
        return (client.prompt, client.kind.like or client.kind.name) in self.cut

    @staticmethod
    def _agrees(client: Client, expected: Answer) -> bool:
        """Whether an answer whose budget was split otherwise is as long, and its branches begin alike."""
        if any(len(ids) != len(expected.ids) for ids in client.seen.values()):
            return False
        if client.record is None or expected.record is None:
            return client.kind.sampling.get("n", 1) > 1  # vLLM hands on no record with several answers
        return begin_alike(client.record, expected.record)

    def _go(self) -> None:
        """Clients go away; what they saw until then was right."""
        for name, client in list(self.clients.items()):
            if client.leaves is not None and client.leaves <= self.steps:
                self.host.abort(name)
                del self.clients[name]
                self.counts["aborted"] += 1
                self.counts["aborted before the first token"] += not client.seen
                expected = self._expected(client).ids
                exact = client.kind.certain and not self._is_cut(client)
                if exact and any(ids != expected[: len(ids)] for ids in client.seen.values()):
                    self.wrong.append(f"{name}, aborted, saw {client.seen}, alone {expected}")

    def leftovers(self) -> dict[str, int]:
        """What is still held, once the worker has heard of the last end."""
        self.host.generate([self.prompts[0]], max_tokens=1, multiverse={"enabled": False})
        return self.engine.leftovers()


def main() -> None:
    """Soak, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--late", action="store_true", help="schedule a step ahead, as async scheduling does")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=110, help="KV blocks of 32 tokens in all")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    engine = (VLLM if find_spec("vllm") else SGLang)(arguments.blocks, arguments.late)
    host = engine.host
    soak = Soak(engine, arguments.at_once, arguments.seed)
    soak.undisturbed()
    before, wall, cpu = host.counters(), time.monotonic(), time.process_time()
    soak.run(arguments.requests)
    counters = {name: count - before[name] for name, count in host.counters().items()}
    result = {
        "command": " ".join(["benchmarks/soak.py", *sys.argv[1:]]),
        "requests": arguments.requests,
        "at_once": arguments.at_once,
        "blocks": arguments.blocks,
        "clients": dict(sorted(soak.counts.items())),
        "steps": soak.steps,
        "recomputed_tokens_of_finished": soak.recomputed,
        "counters": counters,
        "leftovers": soak.leftovers(),
        "wrong": len(soak.wrong),
        "examples": soak.wrong[:3],
        "seconds": {"wall": round(time.monotonic() - wall), "cpu": round(time.process_time() - cpu)},
        "machine": facts(),
    }
    result["verdict"] = "failed" if soak.wrong or any(result["leftovers"].values()) else "held"
    print(json.dumps(result, indent=1))
    path = RESULTS / f"{engine.name}_soak.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known["a step ahead" if arguments.late else "step by step"] = result
    path.write_text(json.dumps(known, indent=1) + "\n")
    sys.exit(result["verdict"] != "held")


if __name__ == "__main__":
    main()
