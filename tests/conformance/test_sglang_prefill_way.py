"""SGLang: which prompts with blocks are computed in one forward, and what rows and masks hold; without an engine."""

from __future__ import annotations

import sys
from itertools import pairwise
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("sglang", reason="single-pass prefill belongs to SGLang's adapter")

from prompts import structured_prompts

from multiverse import Binding, Limits, parse_ids
from multiverse.attention import custom_mask, dense_mask
from multiverse.decoding.controller import Controller
from multiverse.errors import UnsupportedHostError
from multiverse.structure.layout import layout
from multiverse_sglang.attention.masks import computed
from multiverse_sglang.scheduler.prefill_way import prepare_prefill
from multiverse_sglang.scheduler.single_pass import BatchSegment, SinglePass, SinglePassPrefill

Settings = dict[str, Any]


def scheduler(rows: int = 4096, **other: Any) -> SimpleNamespace:
    """What `SinglePass` looks at."""
    pool = SimpleNamespace(size=rows, free=list(range(1, rows + 1)))
    pool.available_size = lambda: len(pool.free)
    pool.alloc_rows = lambda count: [pool.free.pop() for _ in range(count)]
    pool.free_rows = pool.free.extend
    runner = SimpleNamespace(
        prefill_attention_backend_str=other.get("backend", "triton"),
        attn_backend=SimpleNamespace(use_paged=other.get("use_paged", False)),
        use_mla_backend=other.get("mla", False),
        kv_index_translator=SimpleNamespace(reads_are_translated=False),
    )
    return SimpleNamespace(
        req_to_token_pool=pool,
        tp_worker=SimpleNamespace(model_runner=runner),
        page_size=other.get("page_size", 1),
        server_args=SimpleNamespace(enable_two_batch_overlap=False, enable_pdmux=False, attn_cp_size=1, dcp_size=1),
    )


@pytest.mark.parametrize(
    ("other", "sound"),
    [
        ({"backend": "multiverse"}, True),
        ({"backend": "torch_native"}, True),
        ({"backend": "triton"}, True),
        ({"backend": "fa3"}, True),
        ({"backend": "flashinfer"}, False),
        ({"backend": "flashinfer", "use_paged": True}, True),
        ({"backend": "intel_amx", "use_paged": True}, False),
        ({"backend": "intel_amx"}, False),
        ({"mla": True}, False),
        ({"page_size": 16}, False),
    ],
)
def test_only_what_writes_kv_before_it_attends_computes_in_one_forward(
    binding: Binding, other: Settings, sound: bool
) -> None:
    (prompt,) = structured_prompts(Random(26), binding, 1)
    for way in ("auto", "segments"):
        made = SinglePass(scheduler(**other), way).begin(Controller(binding, Limits(), prompt), 0)
        assert (made is not None) is sound
    assert SinglePass(scheduler(**other), "replay").begin(Controller(binding, Limits(), prompt), 0) is None


def test_the_rows_of_the_segments_hold_exactly_what_each_token_sees(binding: Binding) -> None:
    """Whatever the tree, wherever what is cached ends, and wherever chunks begin: dense visibility is the reference."""
    rng = Random(27)
    for prompt in structured_prompts(rng, binding, 40):
        laid = layout(parse_ids(prompt, binding))
        hidden = {i: segment.hidden for segment in laid.segments for i in range(segment.start, segment.end)}
        start = rng.choice([0, rng.randrange(len(prompt) - 1)])
        single_pass = SinglePass(host := scheduler())
        prefill = single_pass.begin(Controller(binding, Limits(), prompt), start)
        if prefill is None:
            assert not any(hidden[i] for i in range(start, len(prompt)))
            continue
        cuts = sorted({start, len(prompt), *rng.sample(range(start, len(prompt)), min(3, len(prompt) - start))})
        at = start
        for first, last in pairwise(cuts):
            for segment in prefill.segments_of(4097, first, last):
                row = [i for a, b in segment.intervals or ((0, at + segment.length),) for i in range(a, b)]
                assert (segment.row == segment.source == 4097) is (segment.intervals is None)
                for token in range(at, at + segment.length):
                    seen = [i for i in range(token + 1) if not any(a <= i < b for a, b in hidden[token])]
                    assert row[: segment.prefix + token - at + 1] == seen
                    assert token + segment.shift == laid.positions[token]
                assert len(row) == segment.prefix + segment.length
                at += segment.length
        assert at == len(prompt)
        beyond = list(prefill.segments_of(4097, len(prompt), len(prompt) + 3))
        assert [(p.row, p.prefix, p.shift) for p in beyond] == [(4097, len(prompt), laid.position_delta)]
        assert prefill.segments[-1].end == sys.maxsize
        prefill.release()
        assert len(host.req_to_token_pool.free) == 4096


def test_masks_take_no_rows_and_say_what_each_token_sees(binding: Binding) -> None:
    """FlashInfer writes after it attends, by default; whatever is cached, and wherever chunks begin."""
    rng = Random(30)
    for prompt in structured_prompts(rng, binding, 20):
        laid = layout(parse_ids(prompt, binding))
        start = rng.choice([0, rng.randrange(len(prompt) - 1)])
        host = scheduler(rows=2, backend="flashinfer")
        prefill = SinglePass(host, "mask").begin(Controller(binding, Limits(), prompt), start)
        if prefill is None:
            continue
        assert prefill.rows == []
        end = rng.randint(start + 1, len(prompt))
        found = [*prefill.segments_of(1, start, end), BatchSegment(2, 5, 3, 0, 2)]  # a request without blocks beside it
        assert not any(segment.intervals for segment in found)
        positions = [segment.prefix + segment.shift + i for segment in found[:-1] for i in range(segment.length)]
        assert positions == laid.positions[start:end]
        mask, pairs = custom_mask(computed(found)), (end - start) * end
        assert torch.equal(mask[:pairs].view(end - start, end), dense_mask(laid)[start:end, :end])
        assert torch.equal(mask[pairs:].view(3, 8), torch.ones(3, 8, dtype=torch.bool).tril(5))


@pytest.mark.parametrize(
    ("way", "other", "reasons"),
    [
        (
            "segments",
            {"backend": "flashinfer", "page_size": 16},
            ["--page-size", "flashinfer, which may write"],
        ),
        ("mask", {"backend": "triton", "mla": True}, ["latent attention", "which is not FlashInfer's"]),
    ],
)
def test_a_way_that_was_asked_for_and_cannot_be_is_refused(way: str, other: Settings, reasons: list[str]) -> None:
    with pytest.raises(UnsupportedHostError) as refused:
        prepare_prefill(scheduler(**other), way)
    assert all(f"--multiverse-prefill {way} and " in part for part in str(refused.value).split("; "))
    assert all(reason in str(refused.value) for reason in reasons)
    prepare_prefill(scheduler(**other), "auto")
    prepare_prefill(scheduler(**other), "replay")


def test_rows_are_only_taken_while_half_of_them_are_left(binding: Binding) -> None:
    (prompt,) = structured_prompts(Random(26), binding, 1)
    needed = len(layout(parse_ids(prompt, binding)).segments) - 1
    for rows, enough in ((2 * needed, True), (2 * needed - 2, False)):
        made: SinglePassPrefill | None = SinglePass(scheduler(rows)).begin(Controller(binding, Limits(), prompt), 0)
        assert (made is not None) is enough
