"""The settings of a run, read from YAML. Every mistake is an error that names the field."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from multiverse.harness.settings import Endpoint, Settings, read_settings
from multiverse.structure.dialects import registry

StageName = Literal["summary", "grouping", "restructuring", "refilling", "mapreduce", "judge"]


class Fields(Settings):
    """The names of the input's columns. `id` and `response` may be missing from the input."""

    id: str = "id"
    question: str = "question"
    reasoning: str = "reasoning"
    answer: str = "answer"
    response: str = "response"


class Input(Settings):
    """Where the chains come from: a `.jsonl` or `.parquet` file, a directory of `datasets`, or a name on the hub."""

    path: str
    split: str = "train"
    fields: Fields = Fields()


class StageSettings(Settings):
    """What may differ from stage to stage. `parameters` go into the request as they are."""

    model: str | None = None
    tries: int | None = Field(None, ge=1, le=50)
    parameters: dict[str, Any] = Field(default_factory=dict)


class Likelihood(Settings):
    """The numeric test of independence: a local model, and how many nats per token a path may lose without siblings."""

    model: str
    max_drop: float = Field(0.3, ge=0)


class Checks(Settings):
    """The limits of what is accepted.

    Attributes:
        max_edit_ratio: of the refilled text to the original, characters, after stage 4.
        max_rewrite: share of a path's characters that stage 5 may change.
        judge: let a language model look for dependencies, too.
        likelihood: the numeric test with a local model; not done without.
        keep_wrong: keep chains that state another answer than the input's answer field.
    """

    max_edit_ratio: float = Field(0.2, ge=0, le=1)
    max_rewrite: float = Field(0.5, ge=0, le=1)
    judge: bool = False
    likelihood: Likelihood | None = None
    keep_wrong: bool = False


class Price(Settings):
    """What a million tokens cost."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)


class Config(Settings):
    """A whole run.

    Attributes:
        output: the directory of the store and all results.
        model: for every stage that names none.
        parameters: go into every request; a stage's own win.
        dialect: name or TOML file.
        tries: how often a stage is asked before its round is given up.
        rounds: how often a chain is begun anew, with the reason of the last refusal.
        max_depth: how deep blocks may nest, 1 or 2.
        keep_sequential: accept chains in which nothing is independent, as they are.
        prices: by model, in any currency.
    """

    input: Input
    output: Path
    model: str
    endpoint: Endpoint = Endpoint()
    parameters: dict[str, Any] = Field({"temperature": 0.6})
    stages: dict[StageName, StageSettings] = Field(default_factory=dict)
    dialect: str = "multiverse"
    tries: int = Field(4, ge=1, le=50)
    rounds: int = Field(2, ge=1, le=20)
    max_depth: int = Field(2, ge=1, le=2)
    keep_sequential: bool = True
    checks: Checks = Checks()
    prices: dict[str, Price] = Field(default_factory=dict)

    @field_validator("dialect")
    @classmethod
    def _known(cls, name: str) -> str:
        registry.get(name)
        return name

    def for_stage(self, name: StageName) -> tuple[str, dict[str, Any], int]:
        """Model, request parameters and tries of a stage."""
        own = self.stages.get(name, StageSettings())
        return own.model or self.model, self.parameters | own.parameters, own.tries or self.tries

    def fingerprint(self) -> str:
        """Changes when a chain could come out differently: not with the endpoint, the output or the prices."""
        relevant = self.model_dump(mode="json", exclude={"endpoint", "output", "prices", "input"})
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def load_config(path: str | Path) -> Config:
    """Read a YAML file. Relative paths in it are relative to its directory.

    Raises:
        RunError: naming the file, the field and what is wrong.
    """
    path = Path(path)
    config = read_settings(path, Config)
    home = path.parent
    source = config.input.model_copy(update={"path": _beside(home, config.input.path)})
    return config.model_copy(update={"input": source, "output": home / config.output})


def _beside(home: Path, name: str) -> str:
    """`name` as a path next to the configuration if there is such a file, else as it is: a name on the hub."""
    return str(home / name) if (home / name).exists() or name.endswith((".jsonl", ".parquet")) else name
