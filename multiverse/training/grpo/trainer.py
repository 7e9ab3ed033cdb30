"""The run itself: transformers' `Trainer`, whose batches are problems, and whose losses come of an engine's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from multiverse.models import loading
from multiverse.training.grpo.collector import Collector
from multiverse.training.grpo.engines import Sampling
from multiverse.training.grpo.figures import of_held_out, of_step
from multiverse.training.grpo.loss import clipped, divergence
from multiverse.training.grpo.settings import Grpo
from multiverse.training.prompts import Prompt
from multiverse.training.rollouts import Row
from multiverse.training.rollouts.batch import Batch, collate
from multiverse.training.run import RowTrainer


class GrpoTrainer(RowTrainer):
    """Every batch is the list of problems of one step; `passes` batches behind one another are the same list.

    Attributes:
        collector: asks the engine.
        settings: of the recipe.
        reference: the model that the run began with, if divergence from it counts.
        held_out: problems to measure on.
        attention: how the model computes it.
    """

    collector: Collector
    settings: Grpo
    reference: Any
    held_out: list[Prompt]
    attention: str
    _rows: list[Row]
    _figures: dict[str, float]
    _collected: int = -1

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:  # noqa: ARG002
        """Answers, if there are none of this step yet; then gradients of all of them."""
        model.train()
        step, later = divmod(self.state.global_step, self.settings.passes)
        fresh = self._collected != step
        if fresh:
            self._collect(step, inputs, measured=not later)
        total, far, gap = torch.zeros((), device=self.args.device), 0.0, 0.0
        count = sum(len(row.predictions) for row in self._rows)
        for row in self._rows:
            batch = collate(row, self.attention, self.args.device)
            with self.compute_loss_context_manager():
                logprobs = batch.logprobs(model)
                loss = clipped(batch, logprobs, self.settings).sum() / count
                if self.reference is not None:
                    away = divergence(logprobs, self._reference(batch)).sum() / count
                    loss, far = loss + self.settings.kl * away, far + float(away)
            self.accelerator.backward(loss)
            total += loss.detach()
            gap = max(gap, float((logprobs.detach() - batch.old_logprobs).abs().max()))
        if fresh and not later:  # the weights are still those that the engine has
            self._figures["logprob_difference"] = gap
        if fresh:
            self.log(self._figures | ({"divergence": far} if self.reference is not None else {}))
        return total

    def measure(self) -> None:
        """Log what the engine, with the present weights, makes of the held-out problems."""
        held_out = self.settings.held_out
        if held_out is None:
            return
        self.push()
        sampling = Sampling(1, held_out.temperature, self.settings.max_tokens, 0)
        answers = self.collector.answers(self.held_out, sampling)
        figures = of_held_out([one for group in answers for one in group])
        self.log({f"held_out_{name}": value for name, value in figures.items()})

    def push(self) -> str:
        """Give the engine the present weights; returns what they are called."""
        version = str(self.state.global_step)
        path = Path(self.args.output_dir, "pushed").absolute()
        self.accelerator.unwrap_model(self.model).save_pretrained(path)
        loading.save_tokenizer(self.processing_class, path)
        self.collector.engine.load(str(path), version)
        return version

    def _collect(self, step: int, prompts: list[Prompt], measured: bool) -> None:
        held_out = self.settings.held_out
        if held_out is not None and measured and step % held_out.every == 0:
            self.measure()
        seed = (self.args.seed + 1) * 1_000_003 + step * self.settings.prompts * self.settings.answers
        groups = self.collector.groups(prompts, seed, self.push())
        self._rows = [row for group in groups for row in group.rows(self.settings.share)]
        self._collected = step
        self._figures = of_step(groups)

    @torch.no_grad()
    def _reference(self, batch: Batch) -> torch.Tensor:
        return batch.logprobs(self.reference)

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002
        """Not counted: a batch is problems, not tokens."""
        return 0
