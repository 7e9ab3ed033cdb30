"""The settings of a run, read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from multiverse.evaluation.tasks import Mode
from multiverse.harness.settings import Endpoint, Settings, read_settings
from multiverse.structure.dialects import registry


class Serve(Settings):
    """A server that the run starts and ends.

    Attributes:
        command: as typed in a shell; it must serve at `endpoint.base_url`.
        environment: variables for it, besides the present ones.
        wait: seconds until it must answer.
    """

    command: str
    environment: dict[str, str] = Field(default_factory=dict)
    wait: float = Field(600, gt=0)


class Config(Settings):
    """A whole run.

    Attributes:
        output: the directory of the store and all results.
        model: as the server calls it.
        tasks: names, files, or tasks as in such a file.
        seeds: one sample of every problem per seed; a number means so many, from 0.
        max_tokens: all generated tokens of an answer, over all branches.
        parameters: go into every request as they are.
        tokenizer: counts tokens where the server doesn't tell; approximate without.
        limit: only the first problems of each task.
    """

    output: Path
    model: str
    tasks: list[str | dict[str, Any]] = Field(min_length=1)
    endpoint: Endpoint = Endpoint()
    serve: Serve | None = None
    mode: Mode = "parallel"
    dialect: str = "multiverse"
    tokenizer: str | None = None
    seeds: list[int] = Field([0], min_length=1)
    max_tokens: int = Field(32768, ge=1)
    parameters: dict[str, Any] = Field({"temperature": 0.6, "top_p": 0.95})
    limit: int | None = Field(None, ge=1)

    @field_validator("dialect")
    @classmethod
    def _known(cls, name: str) -> str:
        registry.get(name)
        return name

    @field_validator("seeds", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given

    def request(self, seed: int) -> dict[str, Any]:
        """The parameters of a request."""
        parameters = {**self.parameters, "max_tokens": self.max_tokens, "seed": seed}
        if self.mode == "sequential":
            parameters["multiverse"] = {**self.parameters.get("multiverse", {}), "enabled": False}
        return parameters


def load_config(path: str | Path) -> Config:
    """Read a YAML file. Relative paths in it are relative to its directory.

    Raises:
        RunError: naming the file, the field and what is wrong.
    """
    path = Path(path)
    config = read_settings(path, Config)
    return config.model_copy(update={"output": path.parent / config.output})
