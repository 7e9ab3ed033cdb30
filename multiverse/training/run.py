"""A run: model and data by the recipe, `transformers.Trainer` for everything that is not about blocks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from multiverse.attention.guard import guard
from multiverse.dialects import registry
from multiverse.errors import TrainingError
from multiverse.tags import add_tags
from multiverse.training.collator import collate
from multiverse.training.encode import Encoded
from multiverse.training.recipe import Recipe


class RowTrainer(Trainer):
    """Learns rows in the order they are given, so that a curriculum stays one and a resumed run is the same run."""

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)


def load_model(recipe: Recipe) -> tuple[Any, Any]:
    """The base model, guarded and with the dialect's tags, and its tokenizer.

    Raises:
        TrainingError: if it can't be loaded, or its tokenizer has no chat template.
    """
    torch.manual_seed(recipe.seed)
    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.model)
        model = AutoModelForCausalLM.from_pretrained(
            recipe.model, dtype=torch.float32, attn_implementation=recipe.attention
        )
    except (OSError, ValueError) as error:
        raise TrainingError(f"model {recipe.model} can't be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise TrainingError(f"model {recipe.model}: its tokenizer has no chat template, so no prompt can be rendered")
    add_tags(tokenizer, model, registry.get(recipe.dialect))
    model.config.use_cache = False
    guard(model)
    _freeze(model, recipe.freeze_layers)
    return model, tokenizer


def _freeze(model: Any, layers: int) -> None:
    """No gradient for the lowest `layers` and into the embedding; tied output rows still learn."""
    if not layers:
        return
    model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: output.detach())
    for parameter in model.model.layers[:layers].parameters():
        parameter.requires_grad = False


def arguments(recipe: Recipe) -> TrainingArguments:
    """What the recipe means to `Trainer`."""
    return TrainingArguments(
        output_dir=recipe.output,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=recipe.batch_rows,
        num_train_epochs=1,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        lr_scheduler_type=recipe.schedule,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.dtype == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        seed=recipe.seed,
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=recipe.log_every,
        report_to="none",
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def train(recipe: Recipe, model: Any, tokenizer: Any, data: list[Encoded]) -> RowTrainer:
    """Train `model` on `data`, going on from the last checkpoint in the output directory if there is one."""
    trainer = RowTrainer(
        model=model,
        args=arguments(recipe),
        train_dataset=data,
        data_collator=partial(collate, attention=recipe.attention),
        processing_class=tokenizer,
    )
    out = Path(recipe.output)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if out.is_dir() else None)
    return trainer
