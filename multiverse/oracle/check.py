"""The check: does what a decoder reported for a tree agree with one forward over the finished tree?

The forward knows nothing of forks and caches. It gets the tokens in document order, the positions of their layout and
a dense mask, so it is what SEMANTICS section 2 says and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from multiverse.attention import additive, dense_mask, positions
from multiverse.errors import CheckError
from multiverse.structure.layout import Layout, Separators, layout
from multiverse.structure.tree import Block, Transcript


@dataclass(frozen=True)
class CheckResult:
    """How far two computations of the same log-probabilities are apart.

    Attributes:
        max_difference: the largest absolute difference, in nats.
        worst: index of the token where it is.
        compared: number of tokens compared.
        differences: the difference at every token, `None` where nothing was reported.
        causal_difference: the largest difference of the same reported values to a plain causal forward of the same
            tokens. For a tree with blocks it has to be large, or the check proves nothing.
    """

    max_difference: float
    worst: int
    compared: int
    differences: list[float | None]
    causal_difference: float


def check(
    transcript: Transcript,
    model: Any,
    logprobs: Sequence[float | None] | None = None,
    *,
    separators: Separators = "overlap",
    join: str = "splice",
) -> CheckResult:
    """Compare reported log-probabilities with one dense-mask, explicit-position forward.

    Args:
        transcript: a finished tree of `n` token ids.
        model: the model that decoded it, in float32 if differences of 1e-4 are to mean something.
        logprobs: `n` values (or `None`) as the decoder reported them; the transcript's own if not given.
        separators: as the decoder used them.
        join: that of the dialect.

    Returns:
        the largest difference, and the difference of every token.

    Raises:
        CheckError: if there are no log-probabilities, not as many as tokens, or if tokens are no ids.
    """
    reported = transcript.logprobs if logprobs is None else list(logprobs)
    if reported is None:
        raise CheckError("nothing to check: the transcript carries no logprobs and none were given")
    if len(reported) != len(transcript):
        raise CheckError(f"{len(reported)} logprobs were given for {len(transcript)} tokens")
    if not all(isinstance(token, int) for token in transcript.tokens):
        raise CheckError("the transcript was parsed from text: parse its token ids instead")
    expected = _structured(transcript, model, separators) if join == "splice" else _joined(transcript, model)
    differences = [None if r is None else abs(r - e) for r, e in zip(reported, expected, strict=True)]
    plain_text = rate(model, transcript.ids, causal(len(transcript)))
    plain = [abs(r - e) for r, e in zip(reported, plain_text, strict=True) if r is not None]
    compared = [d for d in differences if d is not None]
    worst = max(compared, default=0.0)
    return CheckResult(
        worst, differences.index(worst) if compared else -1, len(compared), differences, max(plain, default=0.0)
    )


def _structured(transcript: Transcript, model: Any, separators: Separators) -> list[float]:
    return rate(model, transcript.ids, layout(transcript, separators))


def _joined(transcript: Transcript, model: Any) -> list[float]:
    """For dialects that prefill the joined text: every path by itself, then all else causally."""
    ids = transcript.ids
    expected = rate(model, ids, causal(len(ids)))

    def visit(blocks: list[Block], context: list[int]) -> None:
        for block in blocks:
            for path in block.paths if block.parallel else []:
                seen = [i for i in context if i < block.paths[0].start] + list(range(path.start, path.end))
                alone = rate(model, [ids[i] for i in seen], causal(len(seen)))
                for i, value in zip(seen, alone, strict=True):
                    if i >= path.start:
                        expected[i] = value
                visit(path.blocks, seen)
            rest = block.inner() if not block.parallel else block.conclusion.blocks if block.conclusion else []
            visit(rest, context)

    visit(transcript.blocks, list(range(len(ids))))
    return expected


def causal(length: int) -> Layout:
    """The layout of `length` tokens of plain text."""
    return layout(Transcript("", [0] * length))


@torch.inference_mode()
def rate(model: Any, ids: Sequence[int], seen: Layout) -> list[float]:
    """One forward with the positions and the dense mask of a layout.

    Args:
        model: a Hugging Face causal LM.
        ids: `n` token ids.
        seen: a layout of `n` tokens.

    Returns:
        `n` log-probabilities, in nats: of every token given what its predecessor saw; NaN where it has none.
    """
    output = model(
        input_ids=torch.tensor([list(ids)]),
        position_ids=positions(seen)[None],
        attention_mask=additive(dense_mask(seen)[None, None], model.dtype),
        use_cache=False,
    )
    logprobs = output.logits[0].float().log_softmax(-1)
    before = torch.tensor(seen.predecessors)
    values = logprobs[before.clamp(min=0), torch.tensor(list(ids))]
    return values.masked_fill(before < 0, math.nan).tolist()
