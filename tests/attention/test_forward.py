"""The attention paths of transformers compute the same model, and none of them can be fed positions without a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import FAMILIES
from toy import BINDINGS, block, encode

from multiverse import Layout, UnsupportedModelError, layout, parse_ids
from multiverse.attention import additive, block_mask, dense_mask, guard, positions

torch.set_num_threads(1)
TEXT = "ab" + block("cd", "e" + block("f", "gh", prefix="2.") + "a", "abc") + "de" + block("a", "b") + "g"
IDS = encode(TEXT)
LAYOUT = layout(parse_ids(IDS, BINDINGS["multiverse"]))


def forward(model: Any, mask: Any, laid: Layout = LAYOUT) -> torch.Tensor:
    ids = torch.tensor([IDS])
    return model(input_ids=ids, position_ids=positions([laid]), attention_mask=mask, use_cache=False).logits


def gradients(model: Any, mask: Any) -> list[torch.Tensor]:
    model.zero_grad()
    logits = forward(model, mask)
    torch.nn.functional.cross_entropy(logits[0, :-1], torch.tensor(IDS[1:])).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    model = FAMILIES[request.param]()
    yield model
    model.set_attn_implementation("sdpa")


def test_all_three_paths_have_the_same_gradients(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention refuses a backward on CPUs, for which it has no fused kernel. Its unfused one, which is what the
    fused ones are generated from, runs with that refusal lifted."""
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    dense = dense_mask([LAYOUT])
    masks = {"sdpa": dense, "eager": additive(dense), "flex_attention": block_mask(LAYOUT, block_size=16)}
    found = {}
    for implementation, mask in masks.items():
        model.set_attn_implementation(implementation)
        with torch.compiler.set_stance("force_eager"):
            found[implementation] = gradients(model, mask)
    largest = max(float(g.abs().max()) for g in found["sdpa"])
    assert largest > 1e-2, "there is something to compare"
    for other in ("eager", "flex_attention"):
        worst = max(float((a - b).abs().max()) for a, b in zip(found["sdpa"], found[other], strict=True))
        assert worst < 1e-6 * max(1, largest), other


@torch.inference_mode()
def test_flex_attention_has_the_same_forward(model: Any) -> None:
    """Not compiled: that takes a C++ compiler and a minute."""
    expected = forward(model, dense_mask([LAYOUT]))
    model.set_attn_implementation("flex_attention")
    with torch.compiler.set_stance("force_eager"):
        found = forward(model, block_mask(LAYOUT, block_size=16))
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    model.set_attn_implementation("sdpa")
    causal = forward(model, torch.ones(1, 1, len(IDS), len(IDS), dtype=torch.bool).tril())
    assert float((causal - expected).abs().max()) > 0.1, "the mask matters"


@torch.inference_mode()
def test_a_guarded_model_refuses_what_transformers_would_misread(model: Any) -> None:
    right = forward(model, dense_mask([LAYOUT]))
    silently_wrong = forward(model, None)
    assert float((silently_wrong - right).abs().max()) > 0.1
    handle = guard(model)
    try:
        with pytest.raises(UnsupportedModelError, match="the mask is none"):
            forward(model, None)
        with pytest.raises(UnsupportedModelError, match=r"shape \(1, "):
            forward(model, torch.ones(1, len(IDS)))
        with pytest.raises(UnsupportedModelError, match="'sdpa' misreads a BlockMask"):
            forward(model, block_mask(LAYOUT))
        model.set_attn_implementation("eager")
        with pytest.raises(UnsupportedModelError, match=r"'eager' misreads a mask of torch\.bool"):
            forward(model, dense_mask([LAYOUT]))
        model.set_attn_implementation("sdpa")
        assert torch.equal(forward(model, dense_mask([LAYOUT])), right)
    finally:
        handle.remove()


@torch.inference_mode()
def test_a_guarded_model_takes_plain_text_as_before(model: Any) -> None:
    handle = guard(model)
    try:
        ids = torch.tensor([IDS])
        plain = model(input_ids=ids).logits
        explicit = model(input_ids=ids, position_ids=torch.arange(len(IDS))[None]).logits
        assert torch.allclose(plain, explicit, atol=1e-5)
    finally:
        handle.remove()
