"""New weights in the middle of 16 trees, again and again: every answer that ends afterwards has to be the oracle's.

The weights are the same ones, loaded again by the host's own calls (`multiverse.stress.operations`), so the oracle's
answer is known; that all KV was given up and computed again is told by `recomputed_tokens`. Writes the sum over both
hosts, `weight_updates_wrong`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from random import Random
from typing import Any

import aiohttp
import torch
from figures import keep, record

from multiverse.decoding.budgets import Limits
from multiverse.harness.server import Server, command, free_port, installed
from multiverse.models import TINY
from multiverse.models.task import generate as draw
from multiverse.oracle import generate, load
from multiverse.stress.operations import OPERATIONS, Operation

TREES = 16
TOKENS = 700


def main() -> None:
    """Start a server, update its weights in the middle of trees, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--record", action="store_true", help="write figures.json")
    options = parser.parse_args()
    host = next(filter(installed, OPERATIONS))
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    torch.set_num_threads(1)
    rng = Random(5)
    problems = [draw(rng, rng.choice(("flat", "nested")), held_out=True) for _ in range(TREES)]
    expected = oracle([problem.prompt for problem in problems])
    port = free_port()
    with Server(command(host, str(TINY), port), port) as server:
        server.wait(600)
        wrong, recomputed = asyncio.run(update(server.url, host, expected, options.updates))
    answers = options.updates * TREES
    print(f"{host}: {options.updates} updates, {answers} answers, {recomputed} of them recomputed, {len(wrong)} wrong")
    print(*wrong[:3], sep="\n")
    if options.record:
        result = {"updates": options.updates, "answers": answers, "recomputed": recomputed, "wrong": len(wrong)}
        runs = keep("weights", host, result, f"make weights HOST={host}")
        record("weight_updates_wrong", sum(run["wrong"] for run in runs.values()), "make weights")
    sys.exit(bool(wrong) or not recomputed)


def oracle(questions: list[str]) -> dict[str, str]:
    """The reference decoder's answers, by question."""
    model, tokenizer = load(str(TINY))
    turns = [[{"role": "user", "content": question}] for question in questions]
    prompts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    answers = generate(model, tokenizer, prompts, limits=Limits(max_tokens=TOKENS))
    texts = [answer.text.removesuffix(tokenizer.eos_token) for answer in answers]
    return dict(zip(questions, texts, strict=True))


async def update(url: str, host: str, expected: dict[str, str], updates: int) -> tuple[list[str], int]:
    """What was answered wrongly, and how many answers were computed again in part."""
    operation = next(each for each in OPERATIONS[host] if each.name == "the same weights again")
    wrong, recomputed, rng = [], 0, Random(1)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(300)) as client:
        for number in range(updates):
            asked = [asyncio.create_task(ask(client, question)) for question in expected]
            await asyncio.sleep(rng.uniform(0.1, 2.0))
            await operate(client, operation)
            for question, (text, figures) in zip(expected, await asyncio.gather(*asked), strict=True):
                recomputed += figures.get("recomputed_tokens", 0) > 0
                if text != expected[question]:
                    wrong.append(f"update {number}, {question!r}: {text!r}, the oracle says {expected[question]!r}")
    return wrong, recomputed


async def ask(client: aiohttp.ClientSession, question: str) -> tuple[str, dict[str, Any]]:
    body = {"model": str(TINY), "temperature": 0, "max_tokens": TOKENS, "multiverse": {}}
    body |= {"messages": [{"role": "user", "content": question}]}
    async with client.post("/v1/chat/completions", json=body) as response:
        answer = await response.json()
    if response.status != 200:
        return f"{response.status} {answer}", {}
    return answer["choices"][0]["message"]["content"], answer["usage"]["multiverse"]


async def operate(client: aiohttp.ClientSession, operation: Operation) -> None:
    for call in operation.calls:
        body = {key: str(TINY) if value == "MODEL" else value for key, value in (call.body or {}).items()}
        async with client.post(call.path, json=body) as response:
            if response.status != 200:
                raise SystemExit(f"{call.path}: {response.status} {await response.text()}")


if __name__ == "__main__":
    main()
