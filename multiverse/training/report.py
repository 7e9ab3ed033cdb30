"""What a run leaves beside its weights: a log, a plot of the loss, and a model card."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from multiverse.training.recipe import Recipe, dump_recipe

_CARD = """\
---
{base}library_name: transformers
pipeline_tag: text-generation
tags: [multiverse]
multiverse:
  dialect: {dialect}
  separators: {separators}
---

# {name}

{origin} {purpose}. Separators are `{separators}`:
positions were laid out so in training, and have to be when it is served.

    multiverse train recipe.yaml

{examples} examples ({blocks} with blocks), {tokens} tokens per epoch, of which {learnt} were learnt; {steps} steps,
final loss {loss}. `recipe.yaml`, `train_log.json` and `loss.png` lie beside this file. Served with

    vllm serve {output} --plugin multiverse
"""


def write(recipe: Recipe, figures: dict[str, Any], history: list[dict[str, Any]], started: tuple[float, float]) -> None:
    """Write ``recipe.yaml``, ``train_log.json``, ``loss.png`` and ``README.md`` into the output directory.

    Args:
        figures: of the data, from `data.summary`.
        history: `Trainer.state.log_history`, which a resumed run continues.
        started: `clock()` before the run; the seconds in the log are those since the last resume.
    """
    curve = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    out = write_log(recipe, started, data=figures, loss=curve)
    (out / "README.md").write_text(_card(recipe, figures, curve, history[-1]["step"]), encoding="utf-8")
    if curve:
        _plot(curve, out / "loss.png")


def write_log(recipe: Recipe, started: tuple[float, float], **figures: Any) -> Path:
    """Write ``recipe.yaml``, and ``train_log.json`` with `figures`, into the output directory, which is returned."""
    out, now = Path(recipe.output), clock()
    seconds = {"wall_seconds": round(now[0] - started[0]), "cpu_seconds": round(now[1] - started[1])}
    log = {"versions": versions(), **seconds, **figures}
    (out / "train_log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    (out / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return out


def clock() -> tuple[float, float]:
    """Seconds by the wall and of this process."""
    return time.monotonic(), time.process_time()


def _card(recipe: Recipe, figures: dict[str, Any], curve: list[tuple[int, float]], steps: int) -> str:
    blocks = f"to write blocks of the `{recipe.dialect}` dialect (arXiv 2506.09991)"
    origin = f"{recipe.model}, fine-tuned"
    if recipe.scratch is not None:
        origin = f"A {recipe.scratch['model_type']} model, trained from random weights"
    return _CARD.format(
        **dataclasses.asdict(recipe),
        base="" if recipe.scratch is not None else f"base_model: {recipe.model}\n",
        origin=origin,
        name=Path(recipe.output).name,
        examples=figures["examples"],
        blocks=figures["with blocks"],
        tokens=figures["tokens"],
        learnt=figures["learnt tokens"],
        purpose=blocks if figures["with blocks"] else "on plain text, so that it writes no blocks by itself",
        steps=steps,
        loss=f"{curve[-1][1]:.4f}" if curve else "unknown",
    )


def versions() -> dict[str, str]:
    """Releases that a run depends on."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("torch", "transformers", "accelerate", "multiverse-engine")}


def _plot(curve: list[tuple[int, float]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats per token)", yscale="log")
    axes.plot(*zip(*curve, strict=True), linewidth=1)
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=120)
