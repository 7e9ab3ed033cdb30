"""A run: model and data by the recipe, `transformers.Trainer` for everything that is not about blocks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from multiverse.attention import guard
from multiverse.errors import TrainingError
from multiverse.models import loading
from multiverse.structure.dialects import registry
from multiverse.structure.tags import add_tags
from multiverse.training import scratch
from multiverse.training.collator import collate
from multiverse.training.encode import Encoded, Encoder
from multiverse.training.muon import MuonAdamW
from multiverse.training.recipe import Lora, Recipe
from multiverse.training.tag_rows import TagRate, embeddings, freeze_embedding, tag_rows


class RowTrainer(Trainer):
    """Learns rows in the order they are given, so that a curriculum stays one and a resumed run is the same run."""

    kept_from_decay: frozenset[str] = frozenset()

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule; only here the number of steps is known, of which a recipe gives a share."""
        options = dict(self.args.lr_scheduler_kwargs or {})
        if "num_decay_steps" in options:
            options["num_decay_steps"] = round(options["num_decay_steps"] * num_training_steps)
        self.args.lr_scheduler_kwargs = options
        return super().create_scheduler(num_training_steps, optimizer)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """What decays: not an input embedding of which single rows are learnt, decay would move all the others."""
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if name not in self.kept_from_decay]


def load_tokenizer(recipe: Recipe) -> Any:
    """The base model's tokenizer, with the dialect's tags.

    Raises:
        TrainingError: if it can't be loaded or has no chat template.
    """
    try:
        tokenizer = loading.load_tokenizer(recipe.model)
    except (OSError, ValueError) as error:
        raise TrainingError(f"model {recipe.model}: its tokenizer can't be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise TrainingError(f"model {recipe.model}: its tokenizer has no chat template, so no prompt can be rendered")
    add_tags(tokenizer, None, registry.get(recipe.dialect))
    return tokenizer


def load_encoder(recipe: Recipe, tokenizer: Any) -> Encoder:
    """The encoder that a recipe asks for."""
    return Encoder(
        tokenizer,
        registry.get(recipe.dialect),
        separators=recipe.separators,
        max_length=recipe.max_length,
        truncate=recipe.truncate,
        learn_injected=recipe.learn_injected,
    )


def load_model(recipe: Recipe) -> Any:
    """The base model, or one from random weights: guarded, with rows for the dialect's tags, and with what is not to be
    trained frozen.

    Raises:
        TrainingError: if it can't be loaded or built, or has fewer layers than are to be frozen.
    """
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if recipe.scratch is not None:
        model = scratch.build(recipe.scratch, load_tokenizer(recipe), recipe.attention)
    else:
        model = _pretrained(recipe)
    tokenizer = loading.load_tokenizer(recipe.model)
    add_tags(tokenizer, model, registry.get(recipe.dialect))
    guard(model)
    tags = tag_ids(recipe, tokenizer)
    if recipe.freeze_layers:
        _freeze(model, recipe.freeze_layers, tags)
    return _adapt(model, recipe.lora, tags) if recipe.lora else model


def tag_ids(recipe: Recipe, tokenizer: Any) -> list[int]:
    """The ids of the dialect's tags."""
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(registry.get(recipe.dialect).tags.values()))
    return ids


def _pretrained(recipe: Recipe) -> Any:
    try:
        return loading.load_model(recipe.model, dtype=torch.float32, attn_implementation=recipe.attention)
    except (OSError, ValueError) as error:
        raise TrainingError(f"model {recipe.model} can't be loaded: {error}") from error


def _freeze(model: Any, layers: int, tags: list[int]) -> None:
    """No gradient for the lowest `layers` nor through the embedding, but for the tags' rows."""
    if layers >= len(model.base_model.layers):
        raise TrainingError(f"freeze_layers: is {layers}, but the model has {len(model.base_model.layers)} layers")
    freeze_embedding(model, tags)
    for parameter in model.base_model.layers[:layers].parameters():
        parameter.requires_grad = False


def _adapt(model: Any, lora: Lora, tags: list[int]) -> Any:
    """Adapters, and the tags' own rows in the input and in the output embedding."""
    import peft

    rows = list(embeddings(model))
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets,
        trainable_token_indices=dict.fromkeys(rows, tags),
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, config)
    except (ValueError, TypeError) as error:  # a target that is none, or one of the embeddings
        raise TrainingError(f"lora: {error} (targets can't hold {', '.join(rows)}: tags are learnt there)") from error


def arguments(recipe: Recipe) -> TrainingArguments:
    """What the recipe means to `Trainer`."""
    cuda = torch.cuda.is_available()
    decay = {"num_decay_steps": recipe.decay, "decay_type": "linear", "min_lr_ratio": 0.01}
    return TrainingArguments(
        output_dir=recipe.output,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=recipe.batch_rows,
        num_train_epochs=1,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        lr_scheduler_type=recipe.schedule,
        lr_scheduler_kwargs=decay if recipe.schedule == "warmup_stable_decay" else None,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.dtype == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        fsdp=True if recipe.fsdp else None,
        fsdp_config=dict(recipe.fsdp) if recipe.fsdp else None,  # it is written into
        seed=recipe.seed,
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=recipe.log_every,
        report_to="none",
        remove_unused_columns=False,
        use_cpu=not cuda,
        dataloader_pin_memory=False,  # a block mask can't be pinned
    )


def optimizer(recipe: Recipe, model: Any) -> MuonAdamW | None:
    """What the recipe asks for beside the optimiser that `Trainer` makes."""
    if recipe.optimizer != "muon":
        return None
    return MuonAdamW(model, recipe.matrix_learning_rate, recipe.learning_rate, recipe.weight_decay)


def make_trainer(recipe: Recipe, model: Any, tokenizer: Any, rows: list[Encoded]) -> RowTrainer:
    """A trainer for `model` on `rows`."""
    settings = arguments(recipe)
    trainer = RowTrainer(
        model=model,
        args=settings,
        optimizers=(optimizer(recipe, model), None),
        train_dataset=rows,
        data_collator=partial(collate, attention=recipe.attention, device=settings.device),
        processing_class=tokenizer,
    )
    set_rates(recipe, trainer, model, tokenizer)
    return trainer


def set_rates(recipe: Recipe, trainer: RowTrainer, model: Any, tokenizer: Any) -> None:
    """What differs for the tags' rows: no decay of their matrix where only they are learnt, a rate of their own."""
    if recipe.freeze_layers:
        trainer.kept_from_decay = _frozen_rows(model)
    if recipe.tags_learning_rate is not None:
        ratio = recipe.tags_learning_rate / recipe.learning_rate
        trainer.add_callback(TagRate(tag_rows(model, tag_ids(recipe, tokenizer)), ratio))


def _frozen_rows(model: Any) -> frozenset[str]:
    """The name of the input embedding's parameter if it is not the output's too."""
    names = list(embeddings(model))
    return frozenset({f"{names[0]}.weight"}) if len(names) > 1 else frozenset()


def train(recipe: Recipe, model: Any, tokenizer: Any, rows: list[Encoded]) -> RowTrainer:
    """Train `model` on `rows`, going on from the last checkpoint in the output directory if there is one.

    Returns:
        the trainer, with the finished model and the log.
    """
    trainer = make_trainer(recipe, model, tokenizer, rows)
    resume(recipe, trainer)
    return trainer


def resume(recipe: Recipe, trainer: RowTrainer) -> None:
    """Run `trainer` to its end, from the last checkpoint in the output directory if there is one."""
    out = Path(recipe.output)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if out.is_dir() else None)


def save(recipe: Recipe, trainer: RowTrainer, tokenizer: Any) -> None:
    """Write the finished model, adapters merged, so that engines read it as it is. All processes have to call this."""
    if recipe.lora:
        trainer.model = trainer.model.merge_and_unload()
    trainer.model.config.use_cache = True  # Trainer turned it off
    trainer.save_model(recipe.output)
    if trainer.is_world_process_zero():
        loading.save_tokenizer(tokenizer, recipe.output)
