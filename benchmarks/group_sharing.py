"""One step of a policy gradient on a group of answers: with the prompt computed once, beside the same rows apart.

A prompt of 512 tokens and 8 answers of 128, on a model of SmolLM2-135M's form with random weights, float32, one thread.
A step is forward and backward over the group and one of AdamW; both ways go by turns, and count answer and prompt
tokens alike: what they have learnt from. Exits with 1 if loss or gradients differ by 1e-5 or more. `--record` writes
group_shared_tokens_ratio, tokens per CPU second with the prompt shared over those apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Any

import torch
from figures import record
from transformers import LlamaConfig, LlamaForCausalLM

from multiverse.structure.layout import Segment
from multiverse.training.rollouts import Rollout, RolloutStrand, Row, share, to_row
from multiverse.training.rollouts.batch import collate

NAME = "group_shared_tokens_ratio"
PROMPT, ANSWERS, ANSWER = 512, 8, 128
VOCABULARY = 49_152
TOLERANCE = 1e-5


def make_model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def rollouts() -> list[Rollout]:
    """Answers of random tokens, as a random model says them."""
    rng = Random(0)
    prompt, group = [rng.randrange(VOCABULARY) for _ in range(PROMPT)], []
    for number in range(ANSWERS):
        ids = [rng.randrange(VOCABULARY) for _ in range(ANSWER)]
        positions, logprobs = list(range(PROMPT, PROMPT + ANSWER)), [-10.8] * ANSWER
        sampled = [False] * ANSWER
        root = RolloutStrand((), -1, "", ids, positions, sampled, logprobs, 1.0, [], "length", [], [(None, 0, ANSWER)])
        segments = (Segment(0, PROMPT, 0, (), -1),)
        group.append(Rollout(str(number), "0", prompt, segments, (root,), "length"))
    return group


def accumulate(model: Any, rows: Sequence[Row]) -> float:
    """Loss, with gradients in the model."""
    total, count = 0.0, sum(len(row.predictions) for row in rows)
    for row in rows:
        batch = collate(row)
        ratio = (batch.logprobs(model) - batch.old_logprobs).exp()
        loss = -torch.minimum(ratio * batch.advantages, ratio.clamp(0.8, 1.2) * batch.advantages).sum() / count
        loss.backward()
        total += loss.item()
    return total


def agreement(model: Any, ways: dict[str, list[Row]]) -> float:
    """The larger difference of loss and of gradients."""
    found = []
    for rows in ways.values():
        model.zero_grad()
        loss = accumulate(model, rows)
        found.append([torch.tensor(loss), *(parameter.grad for parameter in model.parameters())])
    return max(float((one - other).abs().max()) for one, other in zip(*found, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="steps of each (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the figure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = make_model()
    apart = [to_row(one, (number - 3.5) / 2) for number, one in enumerate(rollouts())]
    ways = {"apart": apart, "shared": [share(apart)]}
    difference = agreement(model, ways)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.turns):
        for name, rows in ways.items():
            start = time.process_time()
            model.zero_grad()
            accumulate(model, rows)
            optimizer.step()
            seconds[name].append(time.process_time() - start)
    ratio = median(seconds["apart"]) / median(seconds["shared"])
    rows = {name: [len(row) for row in found] for name, found in ways.items()}
    print(json.dumps({NAME: ratio, "difference": difference, "seconds": seconds, "tokens of rows": rows}))
    if arguments.record:
        record(NAME, ratio, "benchmarks/group_sharing.py --record")
    return int(not difference < TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
