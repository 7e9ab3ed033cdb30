"""A fine-tuned model inside a host on this CPU: answers, log-probabilities against training, time at batch 1.

    PYTHONPATH=tests/conformance .venvs/vllm/bin/python benchmarks/served.py MODEL HELD_OUT.jsonl --twin TWIN

The plugin runs as in tests/conformance, in whichever host is installed. Greedy, float32. `TWIN` is the same base model,
fine-tuned on the same examples written as plain chains. With `--agree`, answers are turned into text, encoded as
training data is, and rated by a training forward over packed rows; reported is the largest difference to what the host
said. With `--time`, the model in parallel, the model decoding as many tokens one by one, and the twin's own answer are
timed by turns, one request at a time, prompts in the prefix cache; CPU time is that of the engine too where the host is
in this process, as vLLM is. Intervals are of 95 %, over prompts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from answer import Answer, Host
from hosts import make_host
from machine import facts

from multiverse import parse_ids, statistics
from multiverse.evaluation.intervals import mean_interval, paired_p, wilson
from multiverse.models.evaluate import Outcome
from multiverse.oracle import Generation, load
from multiverse.structure.binding import bind, detect
from multiverse.training.agreement import disagreement
from multiverse.training.encode import render_prompt
from multiverse.training.evaluate import MAX_TOKENS, load_examples, outcome, scores
from multiverse.training.schema import Example

PLAIN = {"multiverse": {"enabled": False}}
TOGETHER = 16
"""Prompts in the host at once."""


class Served:
    """A model inside the host, and its tokenizer."""

    def __init__(self, path: str, **sampling: Any) -> None:
        self.model, self.tokenizer = load(path)
        self.host: Host = make_host(path)
        self.sampling = {"max_tokens": MAX_TOKENS, "logprobs": 1} | sampling
        self.binding = bind(detect(self.tokenizer), self.tokenizer)

    def prompt(self, example: Example) -> list[int]:
        return list(self.tokenizer.encode(render_prompt(self.tokenizer, example.messages), add_special_tokens=False))

    def answers(self, examples: Sequence[Example]) -> list[Answer]:
        prompts = [self.prompt(example) for example in examples]
        found: list[Answer] = []
        for start in range(0, len(prompts), TOGETHER):
            found += self.host.generate(prompts[start : start + TOGETHER], **self.sampling)
            print(f"{len(found)} of {len(prompts)} answers", flush=True)
        return found

    def outcome(self, example: Example, answer: Answer) -> Outcome:
        prompt = self.prompt(example)
        tree = parse_ids(prompt + answer.ids, self.binding)
        text = self.tokenizer.decode(answer.ids)
        figures, record = statistics(tree, len(prompt)), answer.record or {}
        result = Generation(tree, answer.ids, text, answer.finish_reason, figures, record)
        return outcome(example, result, self.tokenizer)

    def disagreement(self, examples: Sequence[Example], answers: Sequence[Answer]) -> float:
        """With the training forward, in nats; what the engine wrote itself is reported with 0 and not compared."""
        reported = [[value if value < 0 else None for value in answer.logprobs or []] for answer in answers]
        return disagreement(self.model, self.tokenizer, examples, [answer.ids for answer in answers], reported)

    def timed(self, example: Example, **sampling: Any) -> dict[str, float]:
        """Seconds by the clock and of this process for one answer to a prompt in the prefix cache, and its tokens."""
        prompt = self.prompt(example)
        self.host.generate([prompt], **self.sampling | {"max_tokens": 1} | PLAIN)
        wall, cpu = time.monotonic(), time.process_time()
        (answer,) = self.host.generate([prompt], **self.sampling | sampling)
        return {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu, "tokens": len(answer.ids)}


def share(values: Sequence[bool]) -> dict[str, float]:
    """A share and its interval."""
    low, high = wilson(mean(values), len(values))
    return {"share": mean(values), "low": low, "high": high, "of": len(values)}


def average(values: Sequence[float]) -> dict[str, float]:
    """A mean and its interval."""
    low, high = mean_interval(values)
    return {"mean": mean(values), "low": low, "high": high, "of": len(values)}


def quality(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Right answers, right forks, well-formed blocks, and the degree of what holds one."""
    forked = [o for o in outcomes if o.forks]
    figures: dict[str, Any] = {
        "exact": share([o.exact for o in outcomes]),
        "fork_right": share([o.forks == o.should_fork for o in outcomes]),
        "groups": {group: asdict(s) for group, s in scores(outcomes).items()},
    }
    if forked:
        figures["well_formed_blocks"] = share([o.well_formed for o in forked])
        figures["parallel_degree"] = average([o.tokens / o.critical_path for o in forked])
    return figures


def race(served: Served, twin: Served | None, examples: Sequence[Example]) -> dict[str, Any]:
    """How many times longer the same number of tokens one by one, and the twin's answer, take than in parallel."""
    runs: dict[str, list[dict[str, float]]] = {"parallel": [], "sequential": [], "twin": []}
    for example in examples:
        runs["parallel"].append(served.timed(example))
        same = {"max_tokens": runs["parallel"][-1]["tokens"], "ignore_eos": True}
        runs["sequential"].append(served.timed(example, **same, **PLAIN))
        if twin is not None:
            runs["twin"].append(twin.timed(example))
        print({name: round(found[-1]["wall"], 2) for name, found in runs.items() if found}, flush=True)
    figures: dict[str, Any] = {}
    for name, found in runs.items():
        if found:
            figures[name] = {unit: sum(run[unit] for run in found) for unit in found[0]}
        for clock in ("wall", "cpu") if found and name != "parallel" else ():
            ratios = [run[clock] / parallel[clock] for run, parallel in zip(found, runs["parallel"], strict=True)]
            figures[f"{name} / parallel, {clock}"] = average(ratios)
    return figures


def versus(mine: Sequence[Outcome], theirs: Sequence[Outcome]) -> dict[str, Any]:
    """Exact answers of the model less those of its twin, in points, prompt by prompt."""
    differences = [100.0 * (m.exact - t.exact) for m, t in zip(mine, theirs, strict=True)]
    return average(differences) | {"p": paired_p(differences)}


def measure(
    served: Served, twin: Served | None, examples: list[Example], options: argparse.Namespace
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All figures, and all answers with what came of them."""
    figures: dict[str, Any] = {"host": type(served.host).__name__}
    outcomes: dict[str, list[Outcome]] = {}
    rows: list[dict[str, Any]] = []
    for name, one in {"model": served, "twin": twin}.items():
        if one is None:
            continue
        answers = one.answers(examples)
        outcomes[name] = [one.outcome(e, a) for e, a in zip(examples, answers, strict=True)]
        figures[name] = quality(outcomes[name])
        for example, answer, found in zip(examples, answers, outcomes[name], strict=True):
            text = one.tokenizer.decode(answer.ids)
            rows.append({"of": name, "id": example.id, "expected": example.answer, "text": text} | asdict(found))
        if one is served and options.agree:
            figures["disagreement_nats"] = one.disagreement(examples[: options.agree], answers[: options.agree])
    if twin is not None:
        figures["exact, model less twin (points)"] = versus(outcomes["model"], outcomes["twin"])
    if options.time:
        forking = [e for e, o in zip(examples, outcomes["model"], strict=True) if o.forks][: options.time]
        figures["batch 1"] = race(served, twin, forking) | {"machine": facts()}
    return figures, rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--twin", help="the model that was trained on plain chains")
    parser.add_argument("--n", type=int, default=100, help="examples (default: %(default)s)")
    parser.add_argument("--agree", type=int, default=0, help="answers compared with training (default: none)")
    parser.add_argument("--time", type=int, default=0, help="of those with blocks, how many to time (default: none)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--answers", type=Path, help="write the answers there, one a line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    served = Served(options.model)
    twin = Served(options.twin, **PLAIN) if options.twin else None
    figures, answers = measure(served, twin, load_examples(options.data, served.tokenizer, options.n), options)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.answers:
        options.answers.write_text("".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers))


if __name__ == "__main__":
    main()
