"""The training schema: one example per row of a JSONL or Parquet file or a dataset (docs/training.md).

Nothing is dropped silently: what can't be learnt from is a `Problem` that names the row and says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiverse.errors import TrainingError
from multiverse.harness import rows
from multiverse.harness.messages import MessageError, chat, content, one_text
from multiverse.structure.dialects import Dialect
from multiverse.structure.parser import parse_text
from multiverse.structure.tree import Block, Transcript

Message = dict[str, str]
ROLES = ("system", "user", "assistant")
_NOTHING: tuple[Any, ...] = (None, "", [], {})
"""Values of a turn's other keys that say nothing."""


@dataclass(frozen=True, slots=True)
class Example:
    """One example.

    Attributes:
        id: how it is called in reports.
        messages: the turns before the answer, the last one not the assistant's.
        parallel: the answer with blocks; `None` if there is no such form.
        sequential: the answer as plain text; `None` if there is no such form.
        answer: the final answer alone, for evaluation.
    """

    id: str
    messages: tuple[Message, ...]
    parallel: str | None
    sequential: str | None
    answer: str | None = None

    def text(self, parallel: bool) -> str:
        """The answer in the form asked for; in the other one if there is only that."""
        text = (self.parallel or self.sequential) if parallel else (self.sequential or self.parallel)
        assert text is not None
        return text


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row can't be used: where it is, which example it holds, and the reason."""

    place: str
    id: str
    reason: str

    def __str__(self) -> str:
        name = f" ({self.id})" if self.id else ""
        return f"{self.place}{name}: {self.reason}"


def read(source: str | Path, dialect: Dialect) -> Iterator[tuple[str, Example | Problem]]:
    """Read and check every row of `source`.

    Args:
        source: a `.jsonl`, `.json` or `.parquet` file, or what `datasets.load_dataset` or `load_from_disk` take; of a
            dataset with several splits ``train`` is read, or the one named as in ``name:split``.
        dialect: that of the blocks.

    Yields:
        the row's place (`file:row`, counted from 1, or `file[item]`) and the example, or the problem with it.

    Raises:
        TrainingError: if the source can't be read at all.
    """
    for place, row in rows_of(str(source)):
        yield place, (Problem(place, "", row) if isinstance(row, str) else check(row, place, dialect))


def check(row: dict[str, Any], place: str, dialect: Dialect) -> Example | Problem:
    """Make an example of a row, or say what is wrong with it."""
    name = row.get("id")
    id_ = "" if name is None else str(name)
    try:
        example = _example(row, id_ or place)
        if example.parallel is not None:
            check_blocks(parse_text(example.parallel, dialect), example.parallel)
    except _RowError as error:
        return Problem(place, id_, str(error))
    return example


def check_blocks(tree: Transcript, text: str) -> None:
    """Raise a `ValueError` with the reason if an engine could not have decoded `tree` in parallel."""
    if tree.violations:
        raise _RowError(f"column 'parallel': {tree.violations[0]}")
    for block in tree.walk():
        where = f"column 'parallel': the block at character {_offset(tree, block.start)}"
        if block.goal_close is None or block.reason is not None:
            raise _RowError(f"{where} can't be forked ({block.reason or 'its goal is not closed'})")
        _check_paths(block, where)
    for start, end in tree.stray_text:
        found = "".join(map(str, tree.tokens[start:end]))
        where = f"column 'parallel': at character {_offset(tree, start)}"
        raise _RowError(f"{where} stands {found!r:.60} between the parts of a block, which no engine can write")
    if not text.strip():
        raise _RowError("column 'parallel': is empty")


def _check_paths(block: Block, where: str) -> None:
    outlines, paths = [o.label for o in block.outlines], [p.label for p in block.paths]
    if len(outlines) != len(paths):
        raise _RowError(f"{where} has {len(outlines)} outlines but {len(paths)} paths")
    if outlines != paths:
        raise _RowError(f"{where} has outlines {', '.join(outlines)} but paths {', '.join(paths)}")


def _offset(tree: Transcript, index: int) -> int:
    return sum(len(str(token)) for token in tree.tokens[:index])


class _RowError(ValueError):
    """The reason why a row is unusable."""


def _example(row: dict[str, Any], id_: str) -> Example:
    messages = messages_of(row)
    texts = {column: _text(row, column) for column in ("parallel", "sequential")}
    if messages and messages[-1]["role"] == "assistant":
        if any(texts.values()):
            raise _RowError("'messages' ends with the assistant's turn, so there can't be 'parallel' or 'sequential'")
        texts["parallel"] = messages.pop()["content"]
    if not any(texts.values()):
        raise _RowError(f"neither 'parallel' nor 'sequential' holds an answer; columns are {_columns(row)}")
    if not messages:
        raise _RowError("'messages' holds no turn before the answer")
    answer = one_text(row.get("answer"))
    if answer is None and row.get("answer") is not None:
        raise _RowError(f"column 'answer': must be one text or number, is {row['answer']!r:.40}")
    return Example(id_, tuple(messages), **texts, answer=answer)


def messages_of(row: dict[str, Any]) -> list[Message]:
    """The turns of a row.

    Raises:
        ValueError: with the reason, if it has none or they can't be read.
    """
    question, messages = row.get("question"), row.get("messages")
    if (question is None) == (messages is None):
        raise _RowError(f"needs 'question' or 'messages', one of the two; columns are {_columns(row)}")
    if messages is None:
        if not isinstance(question, str) or not question.strip():
            raise _RowError(f"column 'question': must be a text, is {question!r:.40}")
        return [{"role": "user", "content": question}]
    try:
        turns = chat(messages)
    except MessageError as error:
        raise _RowError(f"column 'messages': {error}") from error
    return [_turn(turn, f"column 'messages', turn {number}") for number, turn in enumerate(turns, 1)]


def _turn(turn: dict[str, Any], where: str) -> Message:
    """Role and text of a turn. It must hold nothing else: a chat template may render that, or leave it out."""
    if turn.get("role") not in ROLES or turn.get("content") is None:
        raise _RowError(f"{where}: must have a role ({', '.join(ROLES)}) and a content")
    if others := [key for key, value in turn.items() if key not in ("role", "content") and value not in _NOTHING]:
        raise _RowError(
            f"{where}: holds {', '.join(map(repr, others))}, which would not be learnt; what the model has to write, "
            "thoughts and their marks included, belongs into 'content'"
        )
    try:
        return {"role": turn["role"], "content": content(turn)}
    except MessageError as error:
        raise _RowError(f"{where}: {error}") from error


def _text(row: dict[str, Any], column: str) -> str | None:
    value = row.get(column)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise _RowError(f"column {column!r}: must be a text, is {value!r:.40}")
    return value


def _columns(row: dict[str, Any]) -> str:
    return ", ".join(key for key, value in row.items() if value is not None) or "all empty"


def rows_of(source: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Place and row of everything in `source`; in place of a row that can't be read the reason."""
    if source.endswith(rows.SUFFIXES):
        yield from _json_rows(source)
        return
    for number, row in enumerate(_load(source), 1):
        yield f"{source}:{number}", dict(row)


def _json_rows(source: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    try:
        for row in rows.read_rows(source):
            if isinstance(row, rows.Problem):
                yield row.place, row.message
            elif isinstance(row.value, dict):
                yield row.place, row.value
            else:
                yield row.place, f"must be a JSON object, is {type(row.value).__name__}"
    except OSError as error:
        raise TrainingError(f"{source} can't be read: {error}") from error


def _load(source: str) -> Any:
    import datasets

    name, _, split = source.partition(":")
    try:
        if source.endswith(".parquet"):
            return datasets.load_dataset("parquet", data_files=source, split="train")
        if Path(name).is_dir() and (Path(name) / "state.json").exists():
            return datasets.load_from_disk(name)
        return datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # `datasets` raises a dozen different kinds, for files and for the network
        raise TrainingError(f"{source} can't be loaded: {error}") from error
