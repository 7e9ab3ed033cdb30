"""What the stages hand on: the typed outputs of the language model's replies, readable as JSON.

Steps are labelled `1`, `2`, and their substeps `2.1`, `2.2`; sentences of the chain are numbered from 1. Nothing here
knows tags, prompts or endpoints.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Kind = Literal["collective", "selective"]
"""Whether the conclusion needs all branches, or picks from alternatives that were tried."""

_RANGE = re.compile(r"(\d{1,7})(?:\s*(?:-|\u2013|\.\.|to)\s*(\d{1,7}))?")
_LONGEST_RANGE = 100_000


class Artefact(BaseModel):
    """Base of all outputs. Fields that nobody asked for are ignored: models like to add remarks."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)


class Step(Artefact):
    """One main step and its substeps, each told in one line."""

    title: str = Field(min_length=1)
    substeps: list[str] = []


class SummaryTree(Artefact):
    """Stage 1: the chain as steps and substeps, in order."""

    steps: list[Step] = Field(min_length=1)

    def titles(self) -> dict[str, str]:
        """Every step and substep by label, in order."""
        found: dict[str, str] = {}
        for number, step in enumerate(self.steps, 1):
            found[str(number)] = step.title
            found |= {f"{number}.{i}": title for i, title in enumerate(step.substeps, 1)}
        return found

    def leaves(self, label: str) -> list[str]:
        """The labels that `label` stands for: its substeps, or itself if it has none."""
        step = self.steps[int(label.split(".", maxsplit=1)[0]) - 1]
        if "." in label or not step.substeps:
            return [label]
        return [f"{label}.{i}" for i in range(1, len(step.substeps) + 1)]


class Group(Artefact):
    """Steps of the same level, in a row, that do not need each other."""

    steps: list[str] = Field(min_length=2)
    kind: Kind = "collective"
    reason: str = Field(min_length=1)

    @field_validator("steps", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        return _as_labels(value)


class Grouping(Artefact):
    """Stage 2: all groups; none if every step builds on the one before."""

    groups: list[Group] = []


class Fork(Artefact):
    """A parallel block of the plan: one list of items per path."""

    parallel: list[list[str | Fork]] = Field(min_length=2)

    @field_validator("parallel", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        return [_as_labels(path) for path in value] if isinstance(value, list) else value


Item = str | Fork


class Plan(Artefact):
    """Stage 3: labels in sequence, with blocks among them."""

    plan: list[Item] = Field(min_length=1)

    @field_validator("plan", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        return _as_labels(value)


class Refill(Artefact):
    """Stage 4: the numbers of the sentences that belong to each label of the plan."""

    sentences: dict[str, list[int]]

    @field_validator("sentences", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return {str(label): _as_numbers(found) for label, found in value.items()} if isinstance(value, dict) else value


class MapReduce(Artefact):
    """Stage 5, of one block: what is written around and into its paths.

    Attributes:
        goal: the sentence before the block, which says what is to be found in it.
        outlines: what each path is to do, without its results.
        edits: sentences of the paths that would not stand alone, by number, in their new words.
        conclusion: what the paths found, together.
    """

    goal: str = Field(min_length=1)
    outlines: list[str] = Field(min_length=2)
    edits: dict[int, str] = {}
    conclusion: str = Field(min_length=1)


class Verdict(Artefact):
    """What the judge says of one block: where a path uses what only a sibling found out."""

    class Dependency(Artefact):
        """One such place."""

        path: int | str
        quote: str = ""
        reason: str

    dependencies: list[Dependency] = []


def _as_labels(value: Any) -> Any:
    """Labels that a model wrote as numbers (2, 2.1) become texts."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [str(value)]
    if isinstance(value, str | dict):
        return [value]
    if isinstance(value, list):
        return [str(item) if isinstance(item, (int, float)) and not isinstance(item, bool) else item for item in value]
    return value


def _as_numbers(value: Any) -> list[int]:
    """`"3-5, 9"`, `[3, "4-5", 9]` or `3` as a list of numbers."""
    if isinstance(value, list):
        return [number for item in value for number in _as_numbers(item)]
    numbers: list[int] = []
    for match in _RANGE.finditer(str(value)):
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first > _LONGEST_RANGE:
            raise ValueError(f"{match[0]} is no range of sentences")
        numbers.extend(range(first, last + 1))
    return numbers
