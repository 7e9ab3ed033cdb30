"""Recorded answers, graded offline: no server is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multiverse.errors import RunError
from multiverse.evaluation.grading import Grader
from multiverse.evaluation.results import Results, described
from multiverse.evaluation.samples import Describer, Sample
from multiverse.harness.messages import one_text
from multiverse.harness.records import Record, read_records
from multiverse.harness.reply_store import Reply


@dataclass(frozen=True)
class Columns:
    """Keys of a record. `text` is found out if not given."""

    answer: str = "reference"
    task: str = "benchmark"
    text: str | None = None


def grade_recorded(
    files: Sequence[str], columns: Columns, grader: Grader, describer: Describer
) -> tuple[Results, list[str]]:
    """Grade every answer in `files`.

    Returns:
        The results, and what could not be read, with its place.

    Raises:
        RunError: if nothing can be graded.
    """
    samples: list[Sample] = []
    unread: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    for file in files:
        for record in read_records(file, columns.text):
            if not isinstance(record, Record):
                unread.append(str(record))
                continue
            expected = one_text(record.fields.get(columns.answer))
            if expected is None:
                unread.append(f"{file}: {record.id}: lacks {columns.answer!r}, the right answer (see --answer-field)")
                continue
            task = str(record.fields.get(columns.task, Path(file).stem))
            seed = seen[task, record.id] = seen.get((task, record.id), -1) + 1  # several answers to one problem
            reply = Reply(record.text, record.fields.get("finish_reason"), 0, 0)
            samples.append(describer.describe(task, record.id, seed, grader, expected, reply))
    if not samples:
        raise RunError(f"nothing to grade in {', '.join(files)}: {'; '.join(unread[:3]) or 'no records'}")
    names = {sample.task: {"source": ", ".join(files)} for sample in samples}
    return Results(" + ".join(Path(file).stem for file in files), described(names, mode="recorded"), samples), unread
