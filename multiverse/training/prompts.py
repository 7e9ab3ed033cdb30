"""Problems to be answered, not imitated: rows of the training schema of which only the question is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from multiverse.errors import TrainingError
from multiverse.harness.messages import one_text
from multiverse.training.schema import Message, messages_of, rows_of


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem.

    Attributes:
        id: how it is called in reports.
        messages: the turns before the answer.
        answer: the right answer; `None` if the data has none.
        worth_block: whether its example forks; `None` if there are not both forms of it to tell.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str | None
    worth_block: bool | None


def read_prompts(source: str, limit: int | None = None) -> list[Prompt]:
    """The problems of a source (see `schema.read`).

    Raises:
        TrainingError: if it can't be read, naming the first row that holds no problem.
    """
    return list(islice(_prompts(source), limit))


def _prompts(source: str) -> Iterator[Prompt]:
    for place, row in rows_of(source):
        if isinstance(row, str):
            raise TrainingError(f"{place}: {row}")
        try:
            turns = messages_of(row)
        except ValueError as error:
            raise TrainingError(f"{place}: {error}") from error
        if turns and turns[-1]["role"] == "assistant":
            turns.pop()
        if not turns:
            raise TrainingError(f"{place}: 'messages' holds no turn before the answer")
        parallel, sequential = row.get("parallel"), row.get("sequential")
        worth = parallel != sequential if parallel and sequential else None
        yield Prompt(str(row.get("id") or place), tuple(turns), one_text(row.get("answer")), worth)
