"""What was trained is what is served: the embedded model's own answers, decoded and in a training forward."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
from tiers import Sizes

from multiverse.models import TINY
from multiverse.models.task import stream
from multiverse.oracle import load
from multiverse.training.evaluate import compare, decode, outcome, scores
from multiverse.training.schema import Example


def test_100_held_out_answers_have_the_same_logprobs_decoded_and_in_training(
    sizes: Sizes,
) -> None:
    """The answers are encoded from their text like any training data, and packed three to a row."""
    model, tokenizer = load(str(TINY))
    drawn = list(islice(stream(7, level=0.3), sizes.trained))
    examples = [
        Example(p.kind, ({"role": "user", "content": p.prompt},), p.parallel, p.sequential, p.answer) for p in drawn
    ]
    results = decode(model, tokenizer, examples, batch=25)
    found = scores([outcome(e, r, tokenizer) for e, r in zip(examples, results, strict=True)])
    assert found["all"].exact >= 0.97
    assert found["block"].well_formed == 1.0
    assert found["block"].bound > 1.3
    assert compare(model, tokenizer, examples, results) < 1e-4
    reported = results[0].transcript.logprobs
    assert reported is not None
    reported[-2] = -3.4028234663852886e38  # which SGLang reports where it can't tell
    assert compare(model, tokenizer, examples[:1], results[:1]) < 1e-4
    broken = [replace(results[0], ids=[*results[0].ids[:-1], 320]), *results[1:]]
    with pytest.raises(ValueError, match="not encoded to the tokens that were decoded"):
        compare(model, tokenizer, examples, broken)
