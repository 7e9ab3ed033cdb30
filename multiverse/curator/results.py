"""From the stores to the files of a run: training data, refusals, artefacts. Each file is replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from multiverse.curator.statistics import CorpusStatistics
from multiverse.curator.store import Shards, merged, total_usage
from multiverse.harness.answers import release

TRAINING = "train.jsonl"
REJECTED = "rejected.jsonl"
ARTEFACTS = "artefacts.jsonl"
REPORT = "report.json"


def write_results(output: Path, count: int | None = None) -> CorpusStatistics:
    """Write the files of the run in `output`, reading one outcome after the other.

    Args:
        count: how many records the input has; outcomes behind that are left over from another input.
    """
    statistics = CorpusStatistics()
    with ExitStack() as stack:
        stores = Shards(output).open_all(stack)
        names = (TRAINING, REJECTED, ARTEFACTS)
        training, refused, artefacts = (stack.enter_context(_replacing(output / name)) for name in names)
        for position, _, outcome in merged(stores):
            if count is not None and position >= count:
                break
            statistics.add(outcome)
            if outcome["example"] is not None:
                _write(training, outcome["example"])
            else:
                _write(refused, {key: outcome[key] for key in ("id", "stage", "reasons", "chain")})
            _write(artefacts, outcome)
        statistics.usage = total_usage(stores)
    with _replacing(output / REPORT) as report:
        json.dump(statistics.to_dict() | {"graded_with": release()}, report, indent=1)
    return statistics


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """A file that takes the place of `path` once it is complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write(file: IO[str], value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")
