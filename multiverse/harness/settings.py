"""Settings in YAML: what every such file shares. Every mistake is an error that names the file and the field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from multiverse.errors import RunError

T = TypeVar("T", bound=BaseModel)


class Settings(BaseModel):
    """Base of all sections: unknown fields are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Endpoint(Settings):
    """An OpenAI-compatible endpoint and how hard it may be pressed.

    Attributes:
        base_url: as the official client takes it; `None` for OpenAI itself.
        api_key_env: the environment variable that holds the key. If it isn't set, none is sent.
        concurrency: requests under way at once.
        requests_per_minute, tokens_per_minute: ceilings; tokens are estimated from the prompt's length.
        timeout: seconds until an answer is given up and asked for again.
        retries: how often a request is sent again after 408, 409, 429, 5xx, a timeout or a broken connection, with
            exponential backoff or as the server's `Retry-After` says, up to an hour.
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


def read_settings(path: Path, kind: type[T]) -> T:
    """Read a YAML file as a `kind`.

    Raises:
        RunError: naming the file, the field and what is wrong.
    """
    return check_settings(read_yaml(path), kind, str(path))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        RunError: if it can't be read or holds no mapping.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise RunError(f"{path}: holds no settings")
    return data


def check_settings(data: Any, kind: type[T], place: str) -> T:
    """`data` as a `kind`.

    Raises:
        RunError: naming `place`, the field and what is wrong.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise RunError(f"{place}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """pydantic's findings in one line, each with its place."""
    places = [(".".join(map(str, found["loc"])) or "object", found["msg"]) for found in error.errors()[:5]]
    return "; ".join(f"{place}: {message}" for place, message in places)
