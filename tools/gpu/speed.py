"""Speed of a host with blocks, by the experiments of `multiverse bench`: `speed.py vllm|sglang OUT [--size 12|32b]`.

Two servers, of which one has the plugin, are started once for all of them; what is not measured is idle meanwhile.
Weights are the host's dummies: what is timed doesn't depend on them. With other sizes than 12 there is room or time for
one server only, and requests without blocks turn the plugin off by their field.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from transformers import AutoConfig, AutoTokenizer  # noqa: E402

from multiverse.evaluation.bench import experiments  # noqa: E402
from multiverse.evaluation.bench.facts import facts  # noqa: E402
from multiverse.evaluation.bench.hosts import Served, started, words_of  # noqa: E402
from multiverse.evaluation.bench.points import Point, ratio  # noqa: E402
from multiverse.evaluation.bench.race import Sizes  # noqa: E402
from multiverse.evaluation.bench.report import REPORT  # noqa: E402
from multiverse.evaluation.bench.run import Results  # noqa: E402
from multiverse.evaluation.bench.traffic import PLAIN, Traffic  # noqa: E402
from multiverse.models import TINY  # noqa: E402

SHAPES = {"small": (192, 576, 2, 3, 1, 64), "12": (3072, 9216, 12, 48, 16, 64), "32b": (5120, 25600, 64, 64, 8, 128)}
"""Width, of the feed-forward layers too, layers, heads, heads of KV, their width; the last is Qwen3-32B's."""
GPU = {
    "vllm": "--dtype bfloat16 --max-model-len 65536 --max-num-seqs 128 --gpu-memory-utilization 0.25"
    f" --kv-cache-memory-bytes {24 << 30}",
    "sglang": "--dtype bfloat16 --context-length 65536 --max-total-tokens 200000 --max-running-requests 128"
    " --attention-backend triton --sampling-backend pytorch --cuda-graph-max-bs-decode 128"
    " --cuda-graph-max-bs-prefill 1024 --skip-server-warmup",
}
CPU = {"vllm": "", "sglang": "--attention-backend multiverse --max-total-tokens 8192"}
LARGE = Sizes(repeats=2, tokens=(1024,), widths=(4, 16, 64), lengths=(64,), batches=(1, 64))
SMALL = Sizes(repeats=1, tokens=(64,), widths=(4,), lengths=(16,), batches=(1,))
PROMPTS = (4096, 16384, 57344)


def make(size: str) -> Path:
    """A configuration and a tokenizer."""
    place = ROOT / f"build/gpu-shape-{size}"
    config = AutoConfig.from_pretrained(TINY)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = SHAPES[size][:3]
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = SHAPES[size][3:]
    config.max_position_embeddings, config.dtype = 131072, "bfloat16"
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    config.save_pretrained(place)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(place)
    return place


def arguments(host: str, small: bool) -> list[str]:
    """Of its servers; those that the environment asks for, too."""
    found = ["--load-format", "dummy", *(CPU if small else GPU)[host].split()]
    if host == "vllm" and not small:
        for name, value in json.loads(os.environ.get("MULTIVERSE_TEST_VLLM", "{}")).items():
            found += [f"--{name.replace('_', '-')}", json.dumps(value)]
    return found


async def measure(served: dict[str, Served], results: Results, output: Path, small: bool) -> None:
    """Every experiment; what was found is on disk and told at once."""
    one, sizes = served["with"], SMALL if small else LARGE
    words = words_of(one.path)
    clients = {way: Traffic(server.url, server.model, words, server.clock) for way, server in served.items()}
    client = clients["with"]
    plan: list[tuple[str, int, Callable[[Sizes], AsyncIterator[list[Point]]]]] = [
        ("degree", 64, lambda chosen: experiments.degree(client, chosen))
    ]
    pair: Any = {"without": (client, PLAIN)} | {way: (each, {}) for way, each in clients.items()}
    plan.append(("plain", 64, lambda chosen: experiments.plain(pair, chosen)))
    plan += [
        ("ways", prompt, lambda chosen: experiments.ways(client, chosen)) for prompt in ((128,) if small else PROMPTS)
    ]
    plan.append(("turns", 64, lambda chosen: experiments.turns(client, chosen)))
    try:
        await experiments.warm_up(client, Sizes(prompt=64))
        for name, prompt, run in plan:
            widths = (max(sizes.widths[:2]),) if name == "ways" else sizes.widths
            chosen = Sizes(sizes.repeats, prompt, sizes.tokens, widths, sizes.batches, sizes.lengths)
            async for points in run(chosen):
                results.points += points
                results.write(output)
                for point in points:
                    tell(point, points[0])
    finally:
        for each in clients.values():
            await each.close()


def tell(point: Point, first: Point) -> None:
    """Median seconds, and how many tokens in the same time as the first of its race."""
    case = ",".join(f"{name}={value}" for name, value in point.case.items())
    name = f"{point.experiment}:{point.way}:{case},prompt={point.prompt}"
    print(f"FIGURE {name}:ms_per_token {point.per_token.median:.4f}", flush=True)
    if point is not first:
        print(f"FIGURE {name}:gain {ratio(first, point).median * point.tokens / first.tokens:.3f}", flush=True)
    for what, value in point.more.items():
        print(f"FIGURE {name}:{what} {value:.6f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", choices=GPU)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="12")
    options = parser.parse_args()
    small, two = options.size == "small", options.size == "12"
    model, more = str(make(options.size)), arguments(options.host, small)
    about = {
        "command": " ".join(sys.argv),
        "server": {"host": options.host, "arguments": more},
        "plain": "two servers, with and without the plugin" if two else "one server, the request field on and off",
        "model": {"name": f"a Qwen3 of the shape {options.size}, dummy weights"},
        "machine": facts(),
        "clock": "CPU time of the server's processes" if small else "wall-clock time at the client",
        "sizes": {"repeats": (SMALL if small else LARGE).repeats},
    }
    ways = {"with": True, "without": False} if two else {"with": True}
    with ExitStack() as stack, ThreadPoolExecutor() as pool:  # both start at the same time
        managers = {way: started(options.host, model, more, plugin, small) for way, plugin in ways.items()}
        entered = {way: pool.submit(stack.enter_context, manager) for way, manager in managers.items()}
        served = {way: future.result() for way, future in entered.items()}
        asyncio.run(measure(served, Results(about), options.output, small))
    print((options.output / REPORT).read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
