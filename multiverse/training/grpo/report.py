"""What a run leaves beside its weights: the log, curves, and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiverse.training.recipe import Recipe
from multiverse.training.report import write_log

CURVES = {
    "held_out_right": "right answers",
    "held_out_fork_right": "right decisions to fork",
    "held_out_fork_right_block": "of these, where a block is worth it",
    "reward": "reward",
    "serial_collapse": "answers without a branch",
    "spurious_branches": "branches for show",
}

_CARD = """\
---
base_model: {model}
library_name: transformers
pipeline_tag: text-generation
tags: [multiverse]
multiverse:
  dialect: {dialect}
  separators: {separators}
---

# {name}

{model}, trained by reinforcement learning on its own answers to {problems} problems, which {host} decoded in parallel.
Separators are `{separators}`: positions were laid out so, and have to be when it is served.

    multiverse train recipe.yaml

{steps} updates; `recipe.yaml`, `train_log.json` and `curves.png` lie beside this file. Served with

    vllm serve {output} --plugin multiverse
"""


def write(recipe: Recipe, problems: int, history: list[dict[str, Any]], started: tuple[float, float]) -> None:
    """Write ``recipe.yaml``, ``train_log.json``, ``curves.png`` and ``README.md`` into the output directory.

    Args:
        problems: how many there were to learn from.
        history: `Trainer.state.log_history`, which a resumed run continues.
        started: `clock()` before the run; the seconds in the log are those since the last resume.
    """
    assert recipe.grpo is not None
    out = write_log(recipe, started, problems=problems, history=history)
    card = _CARD.format(
        model=recipe.model,
        dialect=recipe.dialect,
        separators=recipe.separators,
        name=out.name,
        output=recipe.output,
        problems=problems,
        host=recipe.grpo.engine.host,
        steps=history[-1]["step"],
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    _plot(history, out / "curves.png")


def _plot(history: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step")
    for key, name in CURVES.items():
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), linewidth=1, label=name)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
