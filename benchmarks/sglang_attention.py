"""Decode steps of SGLang on this CPU, with `--attention-backend multiverse` and with `torch_native`, in one run.

Steps of 32 branches behind 2,048 shared tokens, and of 32 plain requests of 512 tokens; CPU time of the scheduler's
thread (float32, one thread), so other work on the machine does little harm. The two backends, each in a process of its
own, take turns. With `--suite`, also the seconds that tests/conformance/test_answers.py takes with each.

With `--record` the ratios go to benchmarks/results/figures.json. Run with `make bench-sglang-attention`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from statistics import median

from figures import machine, record
from sglang_host import SGLangHost
from transformers import AutoTokenizer

from multiverse import bind, detect
from multiverse.evaluation.bench.traffic import Words

SUITE = Path(__file__).parents[1] / "tests" / "conformance" / "test_answers.py"
BACKENDS = ("torch_native", "multiverse")
ROWS, SHARED, PLAIN, STEPS = 32, 2048, 512, 24
RUN = "import sys, pytest, sglang_host; sglang_host.ATTENTION = sys.argv[1]; sys.exit(pytest.main(['-q', sys.argv[2]]))"


def step_ms(host: SGLangHost) -> list[float]:
    """Milliseconds of the decode steps of all rows since it was asked last."""
    return [1000 * (end - start) for extends, rows, start, end in host.forwards() if rows == ROWS and not extends]


def shared(host: SGLangHost, words: Words, rng: Random) -> list[float]:
    """Branches that fork behind their prompt."""
    prompt = [rng.choice(words.ordinary) for _ in range(SHARED - 8 * ROWS)]  # outlines and tags are the rest
    shape = [2, [[STEPS]] * ROWS, 2]
    bias = dict.fromkeys(words.banned, -100.0)
    (answer,) = host.generate(
        [prompt], max_tokens=3000, ignore_eos=True, logit_bias=bias, multiverse={"shape": shape, "return_tree": True}
    )
    assert answer.record is not None
    assert answer.record["branches"] == ROWS, answer.record
    return step_ms(host)


def plain(host: SGLangHost, words: Words, rng: Random) -> list[float]:
    """Requests that have nothing in common."""
    prompts = [[rng.choice(words.ordinary) for _ in range(PLAIN)] for _ in range(ROWS)]
    host.generate(prompts, max_tokens=STEPS, ignore_eos=True, multiverse={"enabled": False})
    return step_ms(host)


def steps(model: str, repeats: int) -> dict[str, float]:
    """Ratios of the median step of ours to that of torch_native, by figure."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    words = Words.of(tokenizer, bind(detect(tokenizer), tokenizer))
    settings = {"context_length": 4096}
    hosts = {
        name: SGLangHost(model, 1280, False, settings | {"attention_backend": name}, shapes="accept")
        for name in BACKENDS
    }
    ratios = {}
    for case, measure in (("shared", shared), ("plain", plain)):
        times: dict[str, list[float]] = {name: [] for name in BACKENDS}
        for repeat in range(repeats):
            for name, host in hosts.items():
                host.flush()
                host.forwards()
                times[name] += measure(host, words, Random(repeat))
        native, ours = (median(times[name]) for name in BACKENDS)
        ratios[f"sglang_step_{ROWS}_{case}_ratio"] = ratio = round(ours / native, 3)
        print(f"{ROWS} {case} rows: torch_native {native:.1f} ms, multiverse {ours:.1f} ms, ratio {ratio}", flush=True)
    for host in hosts.values():
        host.close()
    return ratios


def suite() -> None:
    """Print the seconds of the conformance suite's answers, engine starts included."""
    for name in BACKENDS:
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", RUN, name, str(SUITE)], check=True)
        print(f"test_answers.py on {name}: {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="build/random-47m", help="see random_model.py")
    parser.add_argument("--repeats", type=int, default=1, help="answers per case and backend, of 24 steps each")
    parser.add_argument("--suite", action="store_true", help="time tests/conformance/test_answers.py too")
    parser.add_argument("--record", action="store_true", help="write figures.json")
    options = parser.parse_args()
    print(machine())
    for name, ratio in steps(options.model, options.repeats).items():
        if options.record:
            record(name, ratio, "make bench-sglang-attention")
    if options.suite:
        suite()


if __name__ == "__main__":
    main()
