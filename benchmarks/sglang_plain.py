"""What the plugin costs SGLang's scheduler when nobody forks: `python benchmarks/sglang_plain.py`.

Plain requests under the overlap scheduler. Timed is what the plugin's own wrappers take of the scheduler's thread,
without the functions of SGLang that they call, beside the forwards alone; both in CPU time of that thread, so other
work on the machine does little harm, and far smaller costs show than between two processes, whose same kernels differ
by several per cent. What the plugin adds in the process of the front end is not in it. Set PYTHONPATH to
tests/conformance; `make bench-sglang-plain` does.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import sglang_host
import sglang_stepper
from machine import facts
from transformers import AutoTokenizer

from multiverse import bind, detect
from multiverse.evaluation.bench.traffic import Words

RESULTS = Path(__file__).parent / "results" / "sglang_plain.json"
SPENT = RESULTS.with_suffix(".tmp")
"""Where the scheduler's process leaves what its wrappers took."""
PROMPT, REPLY = 32, 64


class Spent:
    """CPU seconds of one thread in the plugin's wrappers."""

    seconds = 0.0

    def timed(self, around: bool, wrapper: Callable[..., Any]) -> Callable[..., Any]:
        """`wrapper`, watched. If it is put around a function, its first argument, it is not charged that."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            inside = 0.0

            def original(*own: Any, **named: Any) -> Any:
                nonlocal inside
                start = time.thread_time()
                try:
                    return args[0](*own, **named)
                finally:
                    inside += time.thread_time() - start

            start = time.thread_time()
            try:
                return wrapper(original, *args[1:], **kwargs) if around else wrapper(*args, **kwargs)
            finally:
                self.seconds += time.thread_time() - start - inside

        return watched


def serve(*args: Any) -> None:
    """Main function of the scheduler's process: the suite's, with watched wrappers."""
    from sglang.srt.plugins.hook_registry import HookType

    from multiverse_sglang.wrappers import WRAPPERS

    spent = Spent()
    for target, (kind, wrapper) in list(WRAPPERS.items()):
        WRAPPERS[target] = (kind, spent.timed(kind is HookType.AROUND, wrapper))
    forwards = sglang_stepper.Stepper.on_forwards

    def on_forwards(stepper: Any) -> Any:
        SPENT.write_text(str(spent.seconds))
        spent.seconds = 0.0
        return forwards(stepper)

    sglang_stepper.Stepper.on_forwards = on_forwards  # type: ignore[method-assign]
    sglang_stepper.serve(*args)


def measure(host: sglang_host.SGLangHost, words: Words, batch: int) -> dict[str, Any]:
    """A batch of plain requests, from admission to the last token."""
    rng = Random(batch)
    prompts = [[rng.choice(words.ordinary) for _ in range(PROMPT)] for _ in range(batch)]
    bias = dict.fromkeys(words.banned, -100.0)
    host.generate(prompts, max_tokens=8, logit_bias=bias, ignore_eos=True)
    host.forwards()
    host.generate(prompts, max_tokens=REPLY, logit_bias=bias, ignore_eos=True)
    forwards = host.forwards()
    taken = float(SPENT.read_text())
    computed = sum(end - start for _, _, start, end in forwards)
    return {
        "batch": batch,
        "ms per forward": round(1000 * computed / len(forwards), 2),
        "ms of the plugin": round(1000 * taken / len(forwards), 3),
        "throughput with / without": round(computed / (computed + taken), 4),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="build/random-47m", help="see random_model.py")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    words = Words.of(tokenizer, bind(detect(tokenizer), tokenizer))
    sglang_host.serve = serve
    host = sglang_host.SGLangHost(options.model, settings={"context_length": 4096})
    rows = [measure(host, words, batch) for batch in (1, 16, 64)]
    for row in rows:
        print(row)
    RESULTS.write_text(json.dumps({"machine": facts(), "model": options.model, "rows": rows}, indent=1) + "\n")
    SPENT.unlink()


if __name__ == "__main__":
    main()
