"""Train the embedded model from scratch on a CPU: ``python -m multiverse.models.train``.

A Qwen3 model, nothing custom about it: Multiverse Attention is the mask and the position ids that `multiverse.layout`
derives from each transcript, so the result is served by any engine that knows Qwen3.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from multiverse.models import TINY
from multiverse.models.batches import IGNORE, Batch, Batches, Mode
from multiverse.models.tokenizer import CONTEXT, build_tokenizer


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result; a run is a function of this (and of the libraries' rounding)."""

    mode: Mode = "parallel"
    seed: int = 0
    steps: int = 9700
    tokens: int = 1600  # per step, prompt included
    causal: float = 0.15
    hidden: int = 192
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 384
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    warmup: int = 100
    grow: float = 0.35  # share of the steps over which the problems grow to full size
    decay: float = 0.5  # share of the steps over which the learning rate falls, linearly

    def rate(self, step: int) -> float:
        """Factor of the learning rate at a step, counted from 1."""
        left = (self.steps - step) / (self.steps * self.decay)
        return min(1.0, step / self.warmup, max(left, 0.0) + 0.01)

    def level(self, step: int) -> float:
        """Difficulty of the problems at a step."""
        return min(1.0, step / (self.steps * self.grow))


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A fresh model; its vocabulary is padded to a multiple of 64 so that tensor parallelism can split it."""
    config = Qwen3Config(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.head_dim,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        attn_implementation="sdpa",
        architectures=["Qwen3ForCausalLM"],
    )
    model = Qwen3ForCausalLM(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:  # what is added to the residual stream starts small, and so do the tied embeddings
            into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 if "embed" in name else weight.shape[1] ** -0.5 * (0.1 if into_stream else 0.5)
            torch.nn.init.normal_(weight, std=std)
    return model


def build_optimizers(recipe: Recipe, model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, which was several times faster here; AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def loss_of(model: Qwen3ForCausalLM, batch: Batch) -> Tensor:
    """Mean cross entropy in nats over the solution tokens; the vocabulary is applied to those alone."""
    states = model.model(
        input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False
    ).last_hidden_state
    chosen = batch.labels != IGNORE
    return cross_entropy(model.lm_head(states[chosen]), batch.labels[chosen])


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write a checkpoint that `AutoModelForCausalLM`, vLLM and SGLang read as it is."""
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=CONTEXT // 2,
        do_sample=False,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def train(recipe: Recipe, out: Path, save_every: int = 1000, compiled: bool = False) -> dict[str, object]:
    """Run the recipe, write checkpoint and ``train_log.json`` to `out`, and return the log.

    `compiled` changes nothing but the speed (and the rounding): about a fifth less time, after some minutes of
    compilation; it needs a C++ compiler.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer()
    model = build_model(recipe, tokenizer)
    optimizers = build_optimizers(recipe, model)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    source = Batches(tokenizer, recipe.mode, recipe.tokens, recipe.causal, Random(recipe.seed))
    batches = iter(source)
    loss_fn = torch.compile(loss_of, dynamic=True) if compiled else loss_of
    log = _Log(recipe, sum(p.numel() for p in model.parameters()))
    with _bar() as progress:
        task = progress.add_task(recipe.mode, total=recipe.steps, loss="-")
        for step in range(1, recipe.steps + 1):
            source.level = recipe.level(step)
            for optimizer, base in zip(optimizers, rates, strict=True):
                for group, rate in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = rate * recipe.rate(step)
            batch = next(batches)
            loss = loss_fn(model, batch)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad()
            log.add(step, batch, float(loss.detach()))
            progress.update(task, advance=1, loss=f"{log.loss:.4f}")
            if step % save_every == 0 or step == recipe.steps:
                save(model, tokenizer, out)
                (out / "train_log.json").write_text(json.dumps(log.summary(), indent=1) + "\n")
    return log.summary()


class _Log:
    """What a run did: counts, cost, and the loss (smoothed over about 50 steps) every hundred steps."""

    def __init__(self, recipe: Recipe, parameters: int) -> None:
        self.recipe, self.parameters = recipe, parameters
        self.examples = self.tokens = self.targets = 0
        self.loss = 0.0
        self.curve: list[tuple[int, float]] = []
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def add(self, step: int, batch: Batch, loss: float) -> None:
        self.examples += batch.ids.shape[0]
        self.tokens += batch.ids.numel()
        self.targets += batch.targets
        self.loss = loss if step == 1 else 0.98 * self.loss + 0.02 * loss
        if step % 100 == 0:
            self.curve.append((step, round(self.loss, 5)))
            print(f"step {step} loss {self.loss:.4f} wall {time.monotonic() - self._wall:.0f} s", flush=True)

    def summary(self) -> dict[str, object]:
        return {
            "recipe": asdict(self.recipe),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "parameters": self.parameters,
            "examples": self.examples,
            "tokens": self.tokens,
            "target_tokens": self.targets,
            "wall_seconds": round(time.monotonic() - self._wall),
            "cpu_seconds": round(time.process_time() - self._cpu),
            "loss": self.curve,
        }


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m multiverse.models.train", description=__doc__)
    parser.add_argument("--mode", choices=("parallel", "sequential"), default="parallel")
    parser.add_argument("--out", type=Path, default=TINY, help="directory of the checkpoint (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model; needs a C++ compiler")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(Recipe(mode=options.mode, seed=options.seed, steps=options.steps), options.out, compiled=options.compile)


if __name__ == "__main__":
    main()
