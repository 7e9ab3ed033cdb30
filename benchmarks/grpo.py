"""Does a model learn when to fork? The proof of `method: grpo` on one CPU, inside vLLM; `make grpo`.

Of the problems that are worth a block the embedded model is shown half as plain chains (recipes/tiny-half.yaml), so
that it forks half of them, whichever. Then it learns from its own answers, which vLLM decodes and whose weights are
pushed after every step (recipes/tiny-grpo.yaml). Measured on held-out problems, greedily, before, between and after. A
step that was finished before is not done again; `rm -r build/half build/tiny-half* build/tiny-grpo` begins anew. Exits
with 1 if less came of it than was promised. `--record` writes the figures, benchmarks/results/grpo.json and
docs/images/grpo.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from figures import ROOT, record

HALF, UNTIED, RESULT = Path("build/tiny-half"), Path("build/tiny-half-untied"), Path("build/tiny-grpo")
STEPS = {
    Path("build/half/held_out.jsonl"): ["multiverse.models.rows", "build/half", "--train", "2000", "--held-out", "300"],
    HALF / "train_log.json": ["multiverse", "train", "recipes/tiny-half.yaml"],
    UNTIED / "model.safetensors": ["multiverse.models.untie", str(HALF), str(UNTIED)],
    RESULT / "train_log.json": ["multiverse", "train", "recipes/tiny-grpo.yaml"],
}
"""What is made, and how."""
COMMAND = "benchmarks/grpo.py --record"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the figures")
    options = parser.parse_args()
    for made, command in STEPS.items():
        if not (ROOT / made).exists():
            subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True)
    logs = [json.loads((ROOT / folder / "train_log.json").read_text()) for folder in (HALF, RESULT)]
    history = logs[1]["history"]
    curve = [entry for entry in history if "held_out_right" in entry]
    figures = compare(curve[0], curve[-1])
    steps = [entry for entry in history if "reward" in entry]
    minutes = sum(log["wall_seconds"] for log in logs) / 60
    result = {
        "figures": figures,
        "minutes": round(minutes, 1),
        "cpu_minutes_at_most": round(minutes * (os.cpu_count() or 1), 1),
        "logprob_max_difference": max(entry.get("logprob_difference", 0.0) for entry in steps),
        "held_out": curve,
        "steps": steps,
    }
    print(table(curve), json.dumps({name: result[name] for name in ("figures", "minutes")}, indent=1), sep="\n")
    if options.record:
        for name, value in figures.items():
            record(name, value, COMMAND)
        (ROOT / "benchmarks/results/grpo.json").write_text(json.dumps(result, indent=1) + "\n")
        shutil.copy(ROOT / RESULT / "curves.png", ROOT / "docs/images/grpo.png")
    return int(not holds(figures, result))


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """The figures: shares in per cent. Fork decisions are those about problems that are worth a block."""
    return {
        "grpo_fork_decision_before": round(100 * before["held_out_fork_right_block"], 1),
        "grpo_fork_decision_after": round(100 * after["held_out_fork_right_block"], 1),
        "grpo_parallel_degree_ratio": round(
            after["held_out_parallel_degree_block"] / before["held_out_parallel_degree_block"], 3
        ),
        "grpo_exact_change_points": round(100 * (after["held_out_right"] - before["held_out_right"]), 1),
    }


def holds(figures: dict[str, float], result: dict[str, Any]) -> bool:
    """Whether that is what was promised, and whether blocks are still only where they are worth it."""
    last = result["held_out"][-1]
    return (
        figures["grpo_fork_decision_before"] <= 60
        and figures["grpo_fork_decision_after"] >= 90
        and last["held_out_fork_right"] >= 0.9
        and figures["grpo_parallel_degree_ratio"] >= 1.25
        and figures["grpo_exact_change_points"] >= -1
        and result["logprob_max_difference"] < 1e-4
        and result["cpu_minutes_at_most"] <= 60
    )


def table(curve: list[dict[str, Any]]) -> str:
    """The held-out figures of every time they were measured, as docs/rl.md has them."""
    lines = [
        "| step | exact | right forks, all problems | where a block is worth it | degree there | branches for show |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for entry in curve:
        names = ("right", "fork_right", "fork_right_block")
        shares = " | ".join(f"{100 * entry[f'held_out_{name}']:.1f} %" for name in names)
        degree, shown = entry["held_out_parallel_degree_block"], entry["held_out_spurious_branches"]
        lines.append(f"| {entry['step']} | {shares} | {degree:.2f} | {100 * shown:.1f} % |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
