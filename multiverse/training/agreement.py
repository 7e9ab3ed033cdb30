"""Is what is served what was trained? Log-probabilities that a decoder reported against a training forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from multiverse.structure.binding import detect
from multiverse.training.collator import collate
from multiverse.training.encode import IGNORE, Encoded, Encoder
from multiverse.training.packing import join
from multiverse.training.schema import Example
from multiverse.wire.logprobs import is_rated

PACKED = 3
"""Texts per row: packing is part of what is compared."""


@torch.inference_mode()
def disagreement(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    answers: Sequence[Sequence[int]],
    logprobs: Sequence[Sequence[float | None]],
) -> float:
    """The largest difference, in nats, over all answers.

    Every answer is turned into text and encoded anew as training data is, then laid out, packed and collated.

    Args:
        model, tokenizer: what was trained, in float32.
        examples: what was asked.
        answers: the ids that were decoded, without the prompt.
        logprobs: what was reported for each of them; what the decoder did not rate (`is_rated`) is not compared.

    Raises:
        ValueError: if a text is not encoded to the prompt and the ids that were decoded.
    """
    encoder, worst = Encoder(tokenizer, detect(tokenizer), learn_injected=True), 0.0
    rows: list[tuple[Encoded, list[float | None]]] = []
    for example, ids, reported in zip(examples, answers, logprobs, strict=True):
        text = tokenizer.decode(ids).removesuffix(tokenizer.eos_token)
        encoded = encoder.encode(Example(example.id, example.messages, text, None))
        prompt = len(encoded) - len(ids)
        if encoded.ids[prompt:] != list(ids):
            raise ValueError(f"{example.id}: the text is not encoded to the tokens that were decoded")
        rows.append((encoded, [*([None] * prompt), *reported]))
    for start in range(0, len(rows), PACKED):
        chunk = rows[start : start + PACKED]
        expected = _rate(model, [encoded for encoded, _ in chunk])
        found = [value for _, values in chunk for value in values]
        pairs = zip(found, expected, strict=True)
        worst = max([worst, *(abs(f - e) for f, e in pairs if is_rated(f) and e is not None)])
    return worst


def _rate(model: Any, examples: Sequence[Encoded]) -> list[float | None]:
    """By a training forward of one row: log-probability of every token, `None` where nothing predicts it."""
    row = join(examples)
    batch = collate([row])
    logprobs = model(**batch).logits[0].float().log_softmax(-1)
    at = {place: i for i, place in enumerate(batch["logits_to_keep"].tolist())}
    rated: list[float | None] = []
    for token, before in zip(row.ids, row.layout.predecessors, strict=True):
        predicted = before >= 0 and row.targets[before] != IGNORE
        rated.append(logprobs[at[before], token].item() if predicted else None)
    return rated
