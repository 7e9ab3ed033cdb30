"""The settings of a run, read from YAML. Every mistake is an error that names the field."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from multiverse.curator.replies import explain
from multiverse.dialects import registry
from multiverse.errors import MultiverseError

StageName = Literal["summary", "grouping", "restructuring", "refilling", "mapreduce", "judge"]


class CuratorError(MultiverseError, ValueError):
    """A run that can't begin or go on: its settings, its input, its store or its endpoint."""


class Settings(BaseModel):
    """Base of all sections: unknown fields are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class Endpoint(Settings):
    """An OpenAI-compatible endpoint and how hard it may be pressed.

    Attributes:
        base_url: as the official client takes it; `None` for OpenAI itself.
        api_key_env: the environment variable that holds the key. If it isn't set, none is sent.
        concurrency: requests under way at once.
        requests_per_minute, tokens_per_minute: ceilings; tokens are estimated from the prompt's length.
        timeout: seconds until an answer is given up and asked for again.
        retries: how often a request is sent again after 408, 409, 429, 5xx, a timeout or a broken connection, with
            exponential backoff or as the server's `Retry-After` says.
    """

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(16, ge=1, le=4096)
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(300.0, gt=0)
    retries: int = Field(8, ge=0, le=100)

    @property
    def api_key(self) -> str:
        """The key, or a word that endpoints without keys don't look at."""
        return os.environ.get(self.api_key_env) or "none"


class StageSettings(Settings):
    """What may differ from stage to stage. `parameters` go into the request as they are."""

    model: str | None = None
    tries: int | None = Field(None, ge=1, le=50)
    parameters: dict[str, Any] = {}


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
    parameters: dict[str, Any] = {"temperature": 0.6}
    stages: dict[StageName, StageSettings] = {}
    dialect: str = "multiverse"
    tries: int = Field(4, ge=1, le=50)
    rounds: int = Field(2, ge=1, le=20)
    max_depth: int = Field(2, ge=1, le=2)
    keep_sequential: bool = True
    checks: Checks = Checks()
    prices: dict[str, Price] = {}

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
        CuratorError: naming the file, the field and what is wrong.
    """
    import yaml

    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CuratorError(f"{path}: can't be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CuratorError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise CuratorError(f"{path}: holds no settings; docs/curating.md shows a file")
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise CuratorError(f"{path}: {explain(error)}") from error
    home = path.parent
    source = config.input.model_copy(update={"path": _beside(home, config.input.path)})
    return config.model_copy(update={"input": source, "output": home / config.output})


def _beside(home: Path, name: str) -> str:
    """`name` as a path next to the configuration if there is such a file, else as it is: a name on the hub."""
    return str(home / name) if (home / name).exists() or name.endswith((".jsonl", ".parquet")) else name
