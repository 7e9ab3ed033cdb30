"""Does a server's memory grow with the requests that it has answered? Trees and logprobs in all of them.

Resident memory of all its processes after every hundred requests; the slope of a line through those after the warm-up,
in bytes for a request. The KV pool is so small that the warm-up touches all of it: the system gives a page when it is
first written to, which is no growth. Nor is what glibc keeps of freed memory for each thread, so it is told to keep
little. Writes the larger one of both hosts, `rss_bytes_per_request`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from itertools import islice

import aiohttp
from figures import keep, record

from multiverse.harness.server import HOSTS, Server, command, free_port, installed
from multiverse.models import TINY
from multiverse.models.task import stream

STEP = 100
"""Requests between two looks at memory."""
POOL = {"vllm": ("--num-gpu-blocks-override", "384"), "sglang": ("--max-total-tokens", "12288")}
"""KV of some 32 requests at once."""
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""glibc: one arena for all threads, and freed memory is given back."""


def main() -> None:
    """Ask, look, fit a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000, help="after the warm-up (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--record", action="store_true", help="write figures.json")
    options = parser.parse_args()
    host = next(filter(installed, HOSTS))
    os.environ |= ALLOCATOR
    port = free_port()
    with Server(command(host, str(TINY), port, [*POOL[host]]), port) as server:
        server.wait(600)
        seen = asyncio.run(watch(server, options.warm_up + options.requests, options.concurrency))
    slope = slope_of([(count, size) for count, size in seen if count >= options.warm_up])
    print(f"{host}: {slope:.0f} bytes a request; MiB: " + ", ".join(f"{size / 2**20:.1f}" for _, size in seen[::5]))
    if options.record:
        result = {"requests": options.requests, "bytes_per_request": round(slope), "sizes": dict(seen)}
        runs = keep("memory", host, result, f"make memory HOST={host}")
        record("rss_bytes_per_request", max(run["bytes_per_request"] for run in runs.values()), "make memory")


async def watch(server: Server, requests: int, concurrency: int) -> list[tuple[int, int]]:
    """Resident bytes after so many requests."""
    questions = [problem.prompt for problem in islice(stream(3), 50)]
    slots, seen = asyncio.Semaphore(concurrency), []

    async def ask(number: int) -> None:
        body = {"model": str(TINY), "temperature": 0, "max_tokens": 300, "logprobs": True, "top_logprobs": 3}
        body |= {"messages": [{"role": "user", "content": questions[number % len(questions)]}]}
        async with (
            slots,
            client.post("/v1/chat/completions", json=body | {"multiverse": {"return_tree": True}}) as reply,
        ):
            assert reply.status == 200, await reply.text()
            await reply.read()

    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(server.url, connector=connector) as client:
        for begun in range(0, requests, STEP):
            await asyncio.gather(*(ask(number) for number in range(begun, begun + STEP)))
            seen.append((begun + STEP, server.resident_bytes()))
    return seen


def slope_of(points: list[tuple[int, int]]) -> float:
    """Of the line through the points, by least squares."""
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


if __name__ == "__main__":
    main()
