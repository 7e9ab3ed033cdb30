"""Tasks: where problems come from, how they are asked and how answers are graded. Data in YAML, no code per task."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from multiverse.errors import RunError
from multiverse.evaluation.grading import Grader
from multiverse.harness.rows import SUFFIXES
from multiverse.harness.settings import Settings, check_settings, read_yaml

Mode = Literal["parallel", "sequential", "plain"]
"""Asked to think in parallel and served so; asked and served step by step; asked nothing but the problem."""

EMBEDDED = "embedded"


class Fields(Settings):
    """The names of the columns.

    Attributes:
        choices: for the grader `choice`: a column with the list of options, of which `answer` is the letter; or the
            columns of the wrong answers, which are mixed with the right one in an order that depends on the question.
    """

    id: str = "id"
    question: str = "question"
    answer: str = "answer"
    choices: str | list[str] | None = None


class Instructions(Settings):
    """The system message of each mode; empty for none."""

    parallel: str = "Think in parallel: work on parts of the problem that don't need each other side by side."
    sequential: str = "Think step by step, one step after the other."


class Task(Settings):
    """A set of problems.

    Attributes:
        source: a `.jsonl` or `.json` file, a name on the hub, or `embedded` (held out from the embedded model).
        subset, split: of a set on the hub.
        prompt: the user's message; `{question}` and `{choices}` are put in.
        sha256: of the problems as `problems.checksum` computes it; if given, other problems are refused.
        licence: of the problems, as their publisher states it.
        size: how many problems of `embedded`.
    """

    name: str
    source: str
    subset: str | None = None
    split: str = "test"
    fields: Fields = Fields()
    grader: Grader = "math"
    prompt: str = "{question}\n\nPut the final answer in \\boxed{}."
    instructions: Instructions = Instructions()
    sha256: str | None = None
    licence: str = "not stated"
    size: int = Field(200, ge=1)

    def messages(self, question: str, choices: str, mode: Mode) -> list[dict[str, str]]:
        """What is sent to the server for one problem."""
        system = getattr(self.instructions, mode, "")
        asked = {"role": "user", "content": self.prompt.replace("{choices}", choices).replace("{question}", question)}
        return [{"role": "system", "content": system}, asked] if system else [asked]


def builtin_tasks() -> list[str]:
    """Names of the tasks that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _files().iterdir() if file.name.endswith(".yaml"))


def load_task(given: str | dict[str, Any], home: Path) -> Task:
    """A task by name, from a YAML file, or as given in a configuration.

    Args:
        home: where relative paths start.

    Raises:
        RunError: naming the task, the field and what is wrong.
    """
    if isinstance(given, dict):
        task, place = check_settings(given, Task, f"task {given.get('name', '?')}"), home
    elif given.endswith((".yaml", ".yml")):
        task = check_settings(read_yaml(home / given), Task, str(home / given))
        place = (home / given).parent
    elif given in builtin_tasks():
        with resources.as_file(_files() / f"{given}.yaml") as path:
            return check_settings(read_yaml(path), Task, given)
    else:
        raise RunError(f"task {given!r} is unknown: it must be one of {', '.join(builtin_tasks())}, or a .yaml file")
    local = task.source.endswith(SUFFIXES)
    return task.model_copy(update={"source": str(place / task.source)}) if local else task


def _files() -> Any:
    return resources.files("multiverse.evaluation") / "data" / "tasks"
