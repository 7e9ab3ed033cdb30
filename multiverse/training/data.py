"""The data of a run: every source read and checked before anything is trained, then laid out phase by phase."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from random import Random
from statistics import mean, median
from typing import Any

from multiverse.structure.dialects import registry
from multiverse.training.encode import Encoded, Encoder, EncodingError
from multiverse.training.packing import pack, pack_in_order
from multiverse.training.recipe import Recipe
from multiverse.training.schema import Example, Problem, read


@dataclass
class Corpus:
    """What the sources of a recipe hold.

    Attributes:
        examples: the usable ones.
        problems: the others, in order.
    """

    examples: list[Example] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def load_corpus(recipe: Recipe, encoder: Encoder) -> Corpus:
    """Read all sources and try every example in both forms, so that a run can't fail on one later.

    Raises:
        TrainingError: if a source can't be read at all.
    """
    corpus = Corpus()
    dialect = registry.get(recipe.dialect)
    for source in recipe.data:
        for place, found in islice(read(source.path, dialect), source.limit):
            problem = found if isinstance(found, Problem) else _encoding_problem(found, place, recipe, encoder)
            if isinstance(found, Example) and problem is None:
                corpus.examples.append(found)
            elif problem is not None:
                corpus.problems.append(problem)
    return corpus


def _encoding_problem(example: Example, place: str, recipe: Recipe, encoder: Encoder) -> Problem | None:
    for parallel in {phase.parallel > 0 for phase in recipe.phases} | {phase.parallel == 1 for phase in recipe.phases}:
        try:
            encoder.encode(example, parallel=parallel, mode_prompt=recipe.mode_prompts)
        except EncodingError as error:
            column = "parallel" if example.text(parallel) == example.parallel else "sequential"
            return Problem(place, example.id, f"column {column!r}: {error}")
    return None


def rows(recipe: Recipe, corpus: Corpus, encoder: Encoder) -> list[Encoded]:
    """All rows of the run in the order in which they are learnt: a function of the recipe and the data alone."""
    found: list[Encoded] = []
    rng = Random(recipe.seed)
    for phase in recipe.phases:
        for _ in range(phase.epochs):
            encoded = [_encode(example, phase.parallel, recipe, encoder, rng) for example in corpus.examples]
            found += _arrange(encoded, recipe, rng)
    return found


def _arrange(encoded: list[Encoded], recipe: Recipe, rng: Random) -> list[Encoded]:
    """One pass through the data as rows."""
    if recipe.pack:
        return pack(encoded, recipe.max_length, rng) if recipe.shuffle else pack_in_order(encoded, recipe.max_length)
    if recipe.shuffle:
        rng.shuffle(encoded)
    return encoded


def _encode(example: Example, share: float, recipe: Recipe, encoder: Encoder, rng: Random) -> Encoded:
    parallel, causal = rng.random() < share, rng.random() < recipe.causal
    return encoder.encode(example, parallel=parallel, mode_prompt=recipe.mode_prompts, causal=causal)


def summary(recipe: Recipe, corpus: Corpus, encoder: Encoder) -> dict[str, Any]:
    """Figures to look at before a run: how many examples, how long, how parallel."""
    parallel = any(phase.parallel > 0 for phase in recipe.phases)
    encoded = [encoder.encode(e, parallel=parallel, mode_prompt=recipe.mode_prompts) for e in corpus.examples]
    lengths = sorted(map(len, encoded))
    blocks = sum(e.layout.position_delta < 0 for e in encoded)
    tokens = sum(lengths)
    return {
        "examples": len(encoded),
        "problems": len(corpus.problems),
        "with blocks": blocks,
        "tokens": tokens,
        "learnt tokens": sum(sum(target >= 0 for target in e.targets) for e in encoded),
        "mean length": round(mean(lengths), 1) if lengths else 0,
        "median length": median(lengths) if lengths else 0,
        "longest": lengths[-1] if lengths else 0,
        "tokens / positions": round(tokens / sum(e.layout.next_position for e in encoded), 3) if encoded else 1.0,
    }
