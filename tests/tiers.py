"""The two tiers of tests: `pytest -m "not long"` is the short one (`make test`), plain `pytest` everything.

A test, or one of its parameters, is marked `long` if it shows at length what a short one has shown. What a test of both
tiers does more or less of is a size: it has a short and a full value here and nowhere else. In a test, take the fixture
`sizes`; where it is too early for fixtures, `tiers.sizes()`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How much of the same is done.

    Attributes:
        examples: what Hypothesis draws for a property.
        streams: the same for the controller's properties, whose inputs are the widest.
        problems: the embedded model's problems that are answered at once, of every kind.
        trained: held-out answers that are compared with a training forward.
        sampled: random structured answers whose trees are added up.
        graded: problems of an evaluation.
        solved: problems by which the embedded model is judged.
        operations: requests among random aborts.
        kills: of a run that goes on.
        aborts: steps from one moment of an abort to the next.
    """

    examples: int
    streams: int
    problems: int
    trained: int
    sampled: int
    graded: int
    solved: int
    operations: int
    kills: int
    aborts: int


SHORT = Sizes(
    examples=50,
    streams=150,
    problems=9,
    trained=25,
    sampled=48,
    graded=12,
    solved=60,
    operations=16,
    kills=5,
    aborts=41,
)
FULL = Sizes(
    examples=150,
    streams=500,
    problems=18,
    trained=100,
    sampled=300,
    graded=24,
    solved=150,
    operations=40,
    kills=20,
    aborts=13,
)
_chosen = FULL


def choose(markers: str) -> Sizes:
    """Begin the tier that `pytest -m MARKERS` asks for."""
    global _chosen  # noqa: PLW0603  # one for the whole run
    _chosen = SHORT if "not long" in markers else FULL
    return _chosen


def sizes() -> Sizes:
    """Those of the tier that runs."""
    return _chosen
