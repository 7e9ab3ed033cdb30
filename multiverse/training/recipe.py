"""A recipe: everything that decides a run, read from a YAML file (docs/training.md lists the fields)."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from multiverse.errors import TrainingError
from multiverse.structure.layout import Separators
from multiverse.training.grpo.settings import Grpo

OF_EXAMPLES = ["scratch", "phases", "mode_prompts", "causal", "learn_injected", "max_length", "pack", "truncate"]
OF_EXAMPLES += ["batch_rows", "lora", "fsdp"]
"""Fields that mean nothing, or nothing yet, where a model learns from its own answers."""
Attention = Literal["sdpa", "eager", "flex_attention"]


@dataclass(frozen=True)
class Source:
    """Examples to learn from.

    Attributes:
        path: a JSONL or Parquet file, or the name of a dataset (see `schema.read`).
        limit: use only so many of them.
    """

    path: str
    limit: int | None = None


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum.

    Attributes:
        epochs: how often it goes through the data.
        parallel: share of the examples that are learnt in their parallel form; the others in their sequential one.
    """

    epochs: int = 1
    parallel: float = 1.0


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters instead of all weights; merged into the model that is written at the end.

    Attributes:
        rank, alpha: as in PEFT.
        targets: names of the modules, or ``all-linear``.
    """

    rank: int = 32
    alpha: int = 64
    targets: str | list[str] = "all-linear"


@dataclass(frozen=True)
class Recipe:
    """One run.

    Attributes:
        model: directory or name of the base model; with `scratch`, of its tokenizer.
        scratch: begin with random weights: ``model_type`` and other fields of its config (see `scratch.build`).
        data: where the examples are.
        output: directory of checkpoints and of the finished model.
        dialect: name or TOML file; its tags are added to the tokenizer where they are missing.
        separators: see `multiverse.structure.layout`; written into the model card.
        phases: the curriculum.
        mode_prompts: tell the model in the prompt which form is wanted.
        causal: share of the structured examples laid out as plain text, so that the model also works unforked.
        learn_injected: take the loss over headers that the engine writes, too.
        max_length: tokens of the longest example, and of a packed row.
        pack: several examples per row.
        shuffle: learn the examples in random order; else as they stand in the files.
        truncate: cut answers that are too long, never inside a block; else they are reported.
        attention: how transformers computes it; `flex_attention` needs CUDA.
        dtype: `float32` or `bfloat16` (weights stay float32 then, computation is autocast).
        batch_rows: rows per step and process.
        optimizer: `adamw`; or `muon` for the matrices with `matrix_learning_rate` and AdamW for the rest (see `muon`).
        tags_learning_rate: of the tags' rows in the input and output embeddings, on the same schedule; else that of the
            rest.
        learning_rate, warmup, schedule, weight_decay, max_grad_norm: as in `transformers`; warmup is a share.
        decay: share of the steps over which the schedule `warmup_stable_decay` falls, linearly, to a hundredth.
        freeze_layers: train neither this many of the lowest layers nor the input embedding, but for the tags' rows.
        lora: adapters instead of all weights.
        gradient_checkpointing: less memory, a third more time.
        fsdp: what `TrainingArguments` takes as `fsdp_config`, for a model that is sharded over several GPUs.
        seed: of everything random.
        threads: of torch on a CPU.
        save_every, log_every: steps.
        method: `examples` to learn what the data says; `grpo` to answer its questions and learn from what comes of it.
        grpo: see `multiverse.training.grpo.settings`.
    """

    model: str
    data: list[Source]
    output: str
    scratch: dict[str, Any] | None = None
    dialect: str = "multiverse"
    separators: Separators = "overlap"
    phases: list[Phase] = field(default_factory=lambda: [Phase()])
    mode_prompts: bool = False
    causal: float = 0.0
    learn_injected: bool = False
    max_length: int = 4096
    pack: bool = True
    shuffle: bool = True
    truncate: bool = False
    attention: Attention = "sdpa"
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_rows: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-5
    tags_learning_rate: float | None = None
    matrix_learning_rate: float = 0.02
    warmup: float = 0.05
    schedule: str = "cosine"
    decay: float = 0.5
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    freeze_layers: int = 0
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    fsdp: dict[str, Any] | None = None
    seed: int = 0
    threads: int | None = None
    save_every: int = 100
    log_every: int = 5
    method: Literal["examples", "grpo"] = "examples"
    grpo: Grpo | None = None

    def __post_init__(self) -> None:
        shares = {"causal": self.causal, "warmup": self.warmup, "decay": self.decay}
        shares |= {f"phases[{i}]: parallel": phase.parallel for i, phase in enumerate(self.phases)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise TrainingError(f"{name}: must be a share between 0 and 1, is {share}")
        if self.tags_learning_rate is not None and self.fsdp:
            raise TrainingError("tags_learning_rate: can't be combined with fsdp, which cuts the rows up")
        if self.learning_rate <= 0:
            raise TrainingError(f"learning_rate: must be above 0, is {self.learning_rate}")
        if self.lora and (self.freeze_layers or self.fsdp):
            raise TrainingError("lora: can't be combined with freeze_layers or fsdp")
        if self.scratch is not None and (self.lora or self.freeze_layers):
            raise TrainingError("scratch: can't be combined with lora or freeze_layers, random weights have to learn")
        if self.optimizer == "muon" and (self.lora or self.fsdp):
            raise TrainingError("optimizer: muon can't be combined with lora or fsdp")
        self._check_method()

    def _check_method(self) -> None:
        if (self.method == "grpo") != (self.grpo is not None):
            raise TrainingError("method: grpo and the fields under `grpo` go together")
        if self.method == "grpo":
            defaults = {one.name: one for one in dataclasses.fields(self)}
            changed = [name for name in OF_EXAMPLES if getattr(self, name) != _default(defaults[name])]
            if changed:
                raise TrainingError(f"{', '.join(changed)}: can't be combined with method: grpo")


def _default(one: dataclasses.Field[Any]) -> Any:
    return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        TrainingError: if the file can't be read, or a field is unknown, missing or of the wrong type, naming it.
    """
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{path}: can't be read: {error}") from error
    recipe = _build(Recipe, data, str(path))
    assert isinstance(recipe, Recipe)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """`recipe` as the text of a YAML file, every field spelt out."""
    import yaml

    return str(yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False))


def _build(kind: type, data: Any, place: str) -> Any:
    """An instance of the dataclass `kind` from a mapping, its fields checked against their annotations."""
    if not isinstance(data, dict):
        raise TrainingError(f"{place}: must be a mapping of fields, is {data!r:.60}")
    hints = typing.get_type_hints(kind)
    if unknown := sorted(set(map(str, data)) - set(hints)):
        raise TrainingError(f"{place}: unknown field {', '.join(unknown)}; known are {', '.join(hints)}")
    required = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in data]:
        raise TrainingError(f"{place}: field {', '.join(missing)} is missing")
    values = {name: _value(hints[name], value, f"{place}: {name}") for name, value in data.items()}
    try:
        return kind(**values)
    except TrainingError as error:
        raise TrainingError(f"{place}: {error}") from error


def _value(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        for option in options[:-1]:
            try:
                return _value(option, value, place)
            except TrainingError:
                continue
        return _value(options[-1], value, place)
    if origin is Literal:
        if value not in arguments:
            raise TrainingError(f"{place}: must be one of {', '.join(map(str, arguments))}, is {value!r}")
        return value
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type", hint), value, place)
    if origin is list:
        if not isinstance(value, list) or not value:
            raise TrainingError(f"{place}: must be a list, is {value!r:.60}")
        return [_value(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(value)]
    kind = origin or hint
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TrainingError(f"{place}: must be of type {kind.__name__}, is {value!r:.60}")
    return value
