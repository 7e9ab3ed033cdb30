"""From rollouts to rows of `multiverse train`: tokens, their layout, and what is learnt of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from multiverse.errors import RolloutError
from multiverse.structure.layout import Layout
from multiverse.training.encode import IGNORE, Encoded
from multiverse.training.packing import concatenate
from multiverse.training.rollouts.tree import Key, Rollout

Advantages = float | Mapping[Key, float] | Sequence[float]
"""Of one answer: one number for all of it, one per strand by its key, or one per token in document order."""


class Prediction(NamedTuple):
    """One sampled token, and what a trainer knows of it.

    Attributes:
        place: index in the row of the token whose logits predict it.
        token: its id.
        logprob: what the engine reported, in nats.
        temperature: what logits are divided by to get there.
        advantage: what a policy gradient weights it by.
        version: of the weights that sampled it.
        rollout: number of its answer, in the order in which answers were put into the row.
    """

    place: int
    token: int
    logprob: float
    temperature: float
    advantage: float
    version: str | None
    rollout: int


@dataclass(frozen=True, slots=True)
class Row:
    """One answer, a group that shares its prompt, or several of them packed. ``n`` tokens.

    Attributes:
        ids: token ids, `n`.
        layout: positions and visibility.
        predictions: the sampled tokens, answer by answer, each in document order. What the engine wrote is context and
            not among them. Of a token that answers share there is one for each answer.
    """

    ids: list[int]
    layout: Layout
    predictions: list[Prediction]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rollouts(self) -> int:
        """How many answers it holds."""
        return max((prediction.rollout + 1 for prediction in self.predictions), default=1)

    def encoded(self) -> Encoded:
        """The row as `multiverse train` learns examples: to say again what was sampled, whatever its advantage.

        Raises:
            RolloutError: if one place predicts tokens of several answers, as it does in a group.
        """
        targets = [IGNORE] * len(self)
        for prediction in self.predictions:
            if targets[prediction.place] not in (IGNORE, prediction.token):
                raise RolloutError("answers of a group can't be one example: a place has one target there")
            targets[prediction.place] = prediction.token
        return Encoded(self.ids, targets, self.layout)


def to_row(rollout: Rollout, advantages: Advantages = 0.0) -> Row:
    """The row of one answer.

    Raises:
        RolloutError: if there are not as many advantages as tokens, or none for a strand.
    """
    layout, start = rollout.layout, len(rollout.prompt_ids)
    weights = _advantages(rollout, advantages)
    temperatures = [strand.temperature for strand, at, end in rollout.spans() for _ in range(at, end)]
    logprobs: list[float | None] = rollout.document("logprobs")
    versions: list[str | None] = rollout.document("versions")
    before = layout.predecessors
    predictions = []
    for at, value in enumerate(logprobs):
        if value is not None and before[start + at] >= 0:
            place, token = before[start + at], rollout.ids[start + at]
            predictions.append(Prediction(place, token, value, temperatures[at], weights[at], versions[at], 0))
    return Row(rollout.ids, layout, predictions)


def _advantages(rollout: Rollout, given: Advantages) -> list[float]:
    """One per token of the answer, in document order."""
    strands = [strand for strand, start, end in rollout.spans() for _ in range(start, end)]
    if isinstance(given, Mapping):
        missing = [list(strand.key) for strand in rollout.strands if strand.key not in given]
        if missing:
            raise RolloutError(f"{rollout.id}: no advantage for strands {missing}")
        return [given[strand.key] for strand in strands]
    if isinstance(given, Sequence):
        if len(given) != len(strands):
            raise RolloutError(f"{rollout.id}: {len(given)} advantages for {len(strands)} tokens")
        return list(given)
    return [float(given)] * len(strands)


def join(rows: Sequence[Row]) -> Row:
    """One row of several, in order, none of which sees another, as `multiverse.training.packing` packs examples."""
    ids: list[int] = []
    predictions: list[Prediction] = []
    rollouts = 0
    for row in rows:
        base = len(ids)
        predictions += [p._replace(place=p.place + base, rollout=p.rollout + rollouts) for p in row.predictions]
        ids, rollouts = ids + row.ids, rollouts + row.rollouts
    return Row(ids, concatenate([row.layout for row in rows]), predictions)
