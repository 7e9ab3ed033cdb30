"""The problems of a task, read from a JSONL file, from the hub, or drawn for the embedded model."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from multiverse.errors import RunError
from multiverse.evaluation.tasks import EMBEDDED, Fields, Task
from multiverse.harness import rows
from multiverse.harness.messages import one_text
from multiverse.harness.rows import read_rows

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        answer: what is right; the letter if there are choices.
        choices: the options as they are shown, one a line; empty without.
    """

    id: str
    question: str
    answer: str
    choices: str = ""


def load_problems(task: Task) -> list[Problem]:
    """All problems of `task`, in order.

    Raises:
        RunError: if they can't be read, lack a field or are not those that the task's checksum is of.
    """
    if task.source == EMBEDDED:
        problems = _draw(task.size)
    else:
        records = _from_file(Path(task.source)) if task.source.endswith(rows.SUFFIXES) else _from_hub(task)
        problems = [_problem(row, task, place) for place, row in records]
    if not problems:
        raise RunError(f"task {task.name}: {task.source} holds no problem")
    if len({problem.id for problem in problems}) < len(problems):
        raise RunError(f"task {task.name}: {task.source} holds two problems with the same {task.fields.id!r}")
    if task.sha256 is not None and (found := checksum(problems)) != task.sha256:
        raise RunError(f"task {task.name}: {task.source} has the checksum {found}, not {task.sha256}")
    return problems


def checksum(problems: Sequence[Problem]) -> str:
    """SHA-256 of everything in the problems that matters, so that runs on the same ones can be told."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(astuple(problem), ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _draw(size: int) -> list[Problem]:
    from multiverse.models.task import HELD_OUT_SEED, stream

    drawn: dict[str, str] = {}
    for problem in stream(HELD_OUT_SEED):
        drawn[problem.prompt] = problem.answer
        if len(drawn) == size:
            break
    return [Problem(str(number), question, answer) for number, (question, answer) in enumerate(drawn.items())]


def _from_file(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        found = list(read_rows(path))
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror})") from error
    for row in found:
        if isinstance(row, rows.Problem):
            last = " The file seems to be cut off." if row is found[-1] and len(found) > 1 else ""
            raise RunError(f"{row}.{last}")
        yield row.place, row.value


def _from_hub(task: Task) -> Iterable[tuple[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise RunError(f"task {task.name}: needs `datasets`: pip install multiverse-engine[eval]") from error
    try:
        found = datasets.load_dataset(task.source, task.subset, split=task.split)
    except Exception as error:  # whatever the hub's client raises without a network, a permission or a set
        raise RunError(
            f"task {task.name}: {task.source} can't be loaded from the hub ({' '.join(str(error).split())[:300]});"
            " a local copy can be named as `source: FILE.jsonl` in a task of your own"
        ) from error
    return ((f"{task.source}[{number}]", row) for number, row in enumerate(found))


def _problem(row: Any, task: Task, place: str) -> Problem:
    fields = task.fields
    if not isinstance(row, dict):
        raise RunError(f"{place}: must be an object, is {type(row).__name__}")
    wrong = fields.choices if isinstance(fields.choices, list) else []
    for name in (fields.question, fields.answer, *wrong):
        if row.get(name) is None:
            raise RunError(f"{place}: lacks {name!r} (task {task.name}, `fields`); it has {', '.join(map(str, row))}")
        if one_text(row[name]) is None:
            raise RunError(f"{place}: {name!r} must be one text or number, is {row[name]!r:.60} (task {task.name})")
    question, answer = (str(one_text(row[name])).strip() for name in (fields.question, fields.answer))
    id_ = str(row.get(fields.id, place.rpartition("/")[2]))
    if task.grader != "choice":
        return Problem(id_, question, answer)
    options, letter = _options(row, fields, question, answer, place)
    return Problem(id_, question, letter, "\n".join(f"({LETTERS[i]}) {text}" for i, text in enumerate(options)))


def _options(row: dict[str, Any], fields: Fields, question: str, answer: str, place: str) -> tuple[list[str], str]:
    """The options in the order they are shown, and the letter of the right one."""
    if isinstance(fields.choices, list):
        options = [answer, *(str(one_text(row[name])).strip() for name in fields.choices)]
        Random(zlib.crc32(question.encode())).shuffle(options)
        return options, LETTERS[options.index(answer)]
    given = row.get(fields.choices or "choices")
    if not isinstance(given, list) or answer.upper() not in tuple(islice(LETTERS, len(given))):
        raise RunError(f"{place}: a task with choices needs a list of them and the letter of the right one")
    return [str(option) for option in given], answer.upper()
