"""Rows of rollouts in a model: what the engine said is what training says, shared or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from small import DIALECT, TOKENIZER, model
from torch.nn.attention.flex_attention import create_mask

from multiverse import Limits, bind
from multiverse.attention import block_mask, dense_mask, guard
from multiverse.models import TINY
from multiverse.models.task import generate as problem
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate, load
from multiverse.structure.layout import Layout, Segment
from multiverse.training.rollouts import Reader, Rollout, Row, join, read, share, to_row, write
from multiverse.training.rollouts.batch import collate, mismatch

BINDING = bind(DIALECT, TOKENIZER)


def decoded(lm: Any, kinds: list[str], answers: int = 1, **sampling: Any) -> list[Rollout]:
    """Answers of the oracle, those to one problem with one group."""
    found = []
    for at, kind in enumerate(kinds):
        ids = TOKENIZER.encode(turn(problem(Random(at), kind, held_out=True)))  # type: ignore[arg-type]
        for seed in range(answers):
            (one,) = generate(lm, TOKENIZER, [ids], limits=Limits(max_tokens=400), seed=seed, **sampling)
            found.append(Reader(BINDING).generation(one, f"{at}-{seed}", str(at)))
    return found


@pytest.fixture(scope="module")
def group() -> list[Rollout]:
    """Five answers to one prompt, in blocks, some of which begin alike."""
    found = decoded(load(str(TINY))[0], ["flat"], 5, do_sample=True, temperature=2.2)
    assert any(len(one.strands) > 2 for one in found)
    assert len({tuple(one.ids) for one in found}) > 2
    return found


def test_a_training_forward_says_of_an_answer_what_its_decoder_did() -> None:
    lm = load(str(TINY))[0]
    found = decoded(lm, ["single", "flat", "nested", "chain"])
    assert max(len(strand.key) for one in found for strand in one.strands) == 4, "nested"
    assert mismatch(lm, found) < 1e-4


def test_a_wrong_position_or_a_wrong_view_shows() -> None:
    """With random weights; the embedded model is too sure of itself to mind."""
    lm, prompt = model(), "<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n<Outline>\n2: x\n</Outline>\n</Goal>"
    bounds = Limits(max_critical_path=60)
    (one,) = generate(lm, TOKENIZER, [prompt], limits=bounds, do_sample=True, seed=2)
    found = Reader(BINDING).generation(one, "0", "0")
    assert len(found.strands) == 3
    assert mismatch(lm, [found]) < 1e-4
    moved = [replace(strand, positions=[at + 1 for at in strand.positions]) for strand in found.strands[1:2]]
    wrong = replace(found, strands=(found.strands[0], *moved, *found.strands[2:]))
    assert mismatch(lm, [wrong]) > 1e-3
    row = to_row(found)
    causal = Row(row.ids, Layout((Segment(0, len(row), 0, (), -1),), len(row), len(row)), row.predictions)
    batch = collate(causal)
    assert float((batch.logprobs(lm) - batch.old_logprobs).abs().max().detach()) > 1e-3


def test_what_is_not_a_number_is_as_wrong_as_can_be() -> None:
    lm = model()
    found = decoded(lm, ["single"])
    strand = found[0].strands[0]
    broken = replace(strand, logprobs=[*strand.logprobs[:-1], float("nan")])
    assert mismatch(lm, [replace(found[0], strands=(broken,)), *found]) == float("inf")


def test_only_tokens_of_a_version_are_compared_with_its_weights() -> None:
    lm, other = load(str(TINY))[0], model()
    (found,) = decoded(lm, ["single"])
    (root,) = found.strands
    changed = replace(root, weight_versions=[("1", 0, 5), ("2", 5, len(root.token_ids))])
    both = replace(found, strands=(changed,))
    assert mismatch(lm, [both], "1") < 1e-4
    assert mismatch(other, [both], "2") > 1e-2
    assert mismatch(other, [both], "3") == 0


def loss_and_gradients(lm: Any, rows: list[Row], attention: str) -> tuple[float, list[torch.Tensor]]:
    """Of a clipped policy gradient over all predictions of all rows."""
    lm.zero_grad()
    total, count = 0.0, sum(len(row.predictions) for row in rows)
    for row in rows:
        batch = collate(row, attention)
        ratio = (batch.logprobs(lm) - batch.old_logprobs).exp()
        clipped = ratio.clamp(0.8, 1.2)
        loss = -torch.minimum(ratio * batch.advantages, clipped * batch.advantages).sum() / count
        loss.backward()
        total += loss.item()
    return total, [parameter.grad.clone() for parameter in lm.parameters()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_group_has_the_loss_and_the_gradients_of_its_answers_apart(group: list[Rollout], attention: str) -> None:
    lm = model()
    lm.set_attn_implementation(attention)
    guard(lm)
    rows = [to_row(one, float(at - 2)) for at, one in enumerate(group)]
    for at, row in enumerate(rows):  # as if the weights were those that sampled, but for a little
        with torch.no_grad():
            said = collate(row, attention).logprobs(lm).tolist()
        told = [p._replace(logprob=said[i] + 0.3 * (i % 3 - 1)) for i, p in enumerate(row.predictions)]
        rows[at] = Row(row.ids, row.layout, told)
    shared = share(rows)
    assert len(shared) < sum(map(len, rows)) - 4 * len(group[0].prompt_ids), "more than the prompt"
    apart = loss_and_gradients(lm, rows, attention)
    for one_row in (shared, join([share(rows[:3]), share(rows[3:])])):
        together = loss_and_gradients(lm, [one_row], attention)
        assert together[0] == pytest.approx(apart[0], abs=1e-5)
        assert max(float((a - b).abs().max()) for a, b in zip(apart[1], together[1], strict=True)) < 1e-5
    assert max(float(gradient.abs().max()) for gradient in apart[1]) > 1e-2


def test_flex_attention_sees_in_a_group_what_the_dense_mask_does(group: list[Rollout]) -> None:
    layout = share([to_row(one) for one in group]).layout
    mask, n = block_mask(layout), layout.length
    dense = create_mask(mask.mask_mod, 1, 1, n, n, device="cpu")[0, 0]
    assert torch.equal(dense, dense_mask(layout))
    tiles = mask.to_dense()[0, 0].bool()
    assert not any(
        dense[i * 128 : i * 128 + 128, j * 128 : j * 128 + 128].any() for i, j in (~tiles).nonzero().tolist()
    )


def test_a_temperature_divides_the_logits_it_was_sampled_from() -> None:
    lm = model()
    (found,) = decoded(lm, ["single"], do_sample=True)
    hot = replace(found, strands=tuple(replace(strand, temperature=2.0) for strand in found.strands))
    raw, warm = (collate(to_row(one)) for one in (found, hot))
    logits = lm(**warm.inputs).logits[0]
    expected = (logits / 2).log_softmax(-1)[torch.arange(len(logits)), warm.targets]
    assert torch.allclose(warm.logprobs(lm), expected, atol=1e-6)
    assert not torch.allclose(raw.logprobs(lm), expected, atol=1e-2)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_files_hold_all_of_them(group: list[Rollout], tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"rollouts.{suffix}"
    write(file, group)
    assert read(file) == group
