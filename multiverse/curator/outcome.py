"""What comes of a chain: a training example or a refusal, with everything that led to it, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel

from multiverse.curator.chains import Chain, Problem
from multiverse.decoding.document import statistics
from multiverse.structure.dialects import Dialect
from multiverse.structure.parser import parse_text

Status = Literal["accepted", "rejected"]
STAGES = ("input", "summary", "grouping", "restructuring", "refilling", "mapreduce", "judge", "document", "endpoint")
"""Where a chain can be refused, in the order of the work."""


@dataclass(frozen=True)
class Attempt:
    """One reply and what was against it; `block` counts the blocks of the plan, all numbers are from 0."""

    stage: str
    block: int
    round: int
    number: int
    reasons: list[str]


@dataclass(frozen=True)
class Outcome:
    """One chain's end.

    Attributes:
        stage, reasons: where and why it was rejected.
        example: the line of the training file; `None` if it was rejected.
        figures: of an accepted example: blocks, widths, depth, kinds, lengths, parallel degree.
        checks: what the checks measured.
        artefacts: the output of every stage of the last round.
        attempts: of all rounds, in the order of the work.
    """

    position: int
    id: str
    status: Status
    stage: str
    reasons: list[str]
    example: dict[str, Any] | None
    figures: dict[str, Any]
    checks: dict[str, Any]
    chain: dict[str, Any]
    artefacts: dict[str, Any]
    attempts: list[Attempt]

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON-ready data."""
        return asdict(self)


def accepted(
    chain: Chain,
    document: str,
    dialect: Dialect,
    attempts: Sequence[Attempt],
    artefacts: dict[str, Any],
    checks: dict[str, Any],
) -> Outcome:
    """A training example: `document` in the dialect beside the original."""
    closing = f"\n\n{chain.response}" if chain.response else ""
    example = {
        "id": chain.id,
        "question": chain.question,
        "parallel": document + closing,
        "sequential": chain.reasoning + closing,
        "answer": chain.answer,
    }
    figures = _figures(chain, document, dialect, artefacts)
    return _outcome(chain, "accepted", "", [], example, figures, checks, artefacts, attempts)


def rejected(
    chain: Chain, stage: str, reasons: Sequence[str], attempts: Sequence[Attempt], artefacts: dict[str, Any]
) -> Outcome:
    """A chain that was given up."""
    return _outcome(chain, "rejected", stage, reasons, None, {}, {}, artefacts, attempts)


def unreadable(problem: Problem) -> Outcome:
    """A record of the input that is no chain."""
    return Outcome(problem.position, problem.id, "rejected", "input", [problem.message], None, {}, {}, {}, {}, [])


def _outcome(
    chain: Chain,
    status: Status,
    stage: str,
    reasons: Sequence[str],
    example: dict[str, Any] | None,
    figures: dict[str, Any],
    checks: dict[str, Any],
    artefacts: dict[str, Any],
    attempts: Sequence[Attempt],
) -> Outcome:
    ready = {name: _json(value) for name, value in artefacts.items()}
    ordered = sorted(attempts, key=lambda a: (a.round, STAGES.index(a.stage), a.block, a.number))
    content = {name: value for name, value in asdict(chain).items() if name != "position"}
    return Outcome(
        chain.position, chain.id, status, stage, list(reasons), example, figures, checks, content, ready, ordered
    )


def _figures(chain: Chain, document: str, dialect: Dialect, artefacts: dict[str, Any]) -> dict[str, Any]:
    tree = parse_text(document, dialect)
    found = statistics(tree)
    kinds = [group.kind for group in artefacts["grouping"].groups] if tree.blocks else []
    return {
        "blocks": found.parallel_blocks,
        "widths": [block.width for block in tree.walk()],
        "depth": found.depth,
        "collective": kinds.count("collective"),
        "selective": kinds.count("selective"),
        "tokens": found.tokens,
        "critical_path": found.critical_path,
        "parallel_degree": found.parallel_degree,
        "sentences": len(chain.sentences),
        "sequential_characters": len(chain.reasoning),
        "parallel_characters": len(document),
    }


def _json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_json(item) for item in value] if isinstance(value, list) else value
