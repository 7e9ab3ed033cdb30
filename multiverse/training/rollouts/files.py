"""Rollouts in files: JSON lines or Parquet, the same columns in both (`docs/rl.md` has the schema)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from multiverse.errors import RolloutError
from multiverse.structure.layout import Segment
from multiverse.training.rollouts.tree import SCHEMA, Rollout, RolloutStrand

ROW_GROUP = 256
"""Rollouts of a Parquet file that are read at once."""


def to_dict(rollout: Rollout) -> dict[str, Any]:
    """A rollout as JSON-ready data with the version of the schema; `from_dict` is its inverse."""
    strands = [asdict(strand) for strand in rollout.strands]
    for strand in strands:
        strand["key"] = list(strand["key"])
        strand["fallbacks"] = [{"offset": at, "reason": reason} for at, reason in strand["fallbacks"]]
        spans = strand["weight_versions"]
        strand["weight_versions"] = [{"version": name, "start": start, "end": end} for name, start, end in spans]
    segments = [asdict(segment) for segment in rollout.prompt_segments]
    for segment in segments:
        segment["hidden"] = [list(interval) for interval in segment["hidden"]]
    return {
        "schema": SCHEMA,
        "id": rollout.id,
        "group": rollout.group,
        "finish_reason": rollout.finish_reason,
        "prompt_ids": rollout.prompt_ids,
        "prompt_segments": segments,
        "strands": strands,
    }


def from_dict(data: Mapping[str, Any]) -> Rollout:
    """Read what `to_dict` wrote.

    Raises:
        RolloutError: if it is of another version of the schema, lacks a field, or has parts that don't fit together.
    """
    if data.get("schema") != SCHEMA:
        raise RolloutError(f"rollouts of schema {SCHEMA} are read here, got one of {data.get('schema')!r}")
    try:
        segments = tuple(
            Segment(**{**segment, "hidden": tuple((start, end) for start, end in segment["hidden"])})
            for segment in data["prompt_segments"]
        )
        strands = tuple(map(_read_strand, data["strands"]))
        return Rollout(data["id"], data["group"], data["prompt_ids"], segments, strands, data["finish_reason"])
    except (KeyError, TypeError) as error:
        raise RolloutError(f"rollout {data.get('id')!r} has not the fields of schema {SCHEMA}: {error}") from error


def _read_strand(data: Mapping[str, Any]) -> RolloutStrand:
    return RolloutStrand(
        **{
            **data,
            "key": tuple(data["key"]),
            "fallbacks": [(one["offset"], one["reason"]) for one in data["fallbacks"]],
            "weight_versions": [(one["version"], one["start"], one["end"]) for one in data["weight_versions"]],
        }
    )


def write(path: str | Path, rollouts: Iterable[Rollout]) -> None:
    """Write a file, of the kind that its name ends with: `.jsonl` or `.parquet`.

    Raises:
        RolloutError: if the name ends otherwise, or if pyarrow is needed and missing.
    """
    if _kind(path) == ".jsonl":
        with Path(path).open("w") as file:
            file.writelines(json.dumps(to_dict(rollout)) + "\n" for rollout in rollouts)
        return
    arrow, parquet = _arrow(path)
    table = arrow.Table.from_pylist([to_dict(rollout) for rollout in rollouts], schema=_schema(arrow))
    parquet.write_table(table, path, row_group_size=ROW_GROUP)


def read(path: str | Path) -> list[Rollout]:
    """The rollouts of a file that `write` wrote.

    Raises:
        RolloutError: as `write`, or as `from_dict`.
    """
    if _kind(path) == ".jsonl":
        return [from_dict(json.loads(line)) for line in Path(path).read_text().splitlines() if line]
    _, parquet = _arrow(path)
    return [from_dict(row) for row in parquet.read_table(path).to_pylist()]


def _kind(path: str | Path) -> str:
    suffix = Path(path).suffix
    if suffix not in (".jsonl", ".parquet"):
        raise RolloutError(f"{path}: rollouts are kept in .jsonl or .parquet files")
    return suffix


def _arrow(path: str | Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        message = f"{path}: Parquet needs pyarrow: pip install 'multiverse-engine[rollouts]', or write .jsonl"
        raise RolloutError(message) from error
    return pyarrow, parquet


def _schema(pa: Any) -> Any:
    """The columns of a Parquet file."""
    integer, text, ints = pa.int32(), pa.string(), pa.list_(pa.int32())

    def struct(**fields: Any) -> Any:
        return pa.struct(list(fields.items()))

    segment = struct(start=integer, end=integer, position=integer, hidden=pa.list_(ints), predecessor=integer)
    strand = struct(
        key=ints,
        parent=integer,
        label=text,
        token_ids=ints,
        positions=ints,
        injected=pa.list_(pa.bool_()),
        logprobs=pa.list_(pa.float64()),
        temperature=pa.float64(),
        forks=ints,
        finish_reason=text,
        fallbacks=pa.list_(struct(offset=integer, reason=text)),
        weight_versions=pa.list_(struct(version=text, start=integer, end=integer)),
    )
    columns = {"schema": integer, "id": text, "group": text, "finish_reason": text, "prompt_ids": ints}
    return pa.schema([*columns.items(), ("prompt_segments", pa.list_(segment)), ("strands", pa.list_(strand))])
