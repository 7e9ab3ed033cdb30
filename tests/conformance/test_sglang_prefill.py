"""SGLang: the blocks of a prompt are computed in one forward, and that changes nothing but the number of forwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("sglang", reason="single-pass prefill belongs to SGLang's adapter")

from prompts import structured_prompts
from sglang_host import SGLangHost
from test_answers import TOLERANCE, compare

from multiverse import Binding, Limits, parse_ids
from multiverse.attention import custom_mask, dense_mask
from multiverse.decoding.controller import Controller
from multiverse.errors import UnsupportedHostError
from multiverse.oracle import load
from multiverse.structure.layout import layout
from multiverse_sglang.attention.masks import computed
from multiverse_sglang.scheduler.prefill_way import prepare_prefill
from multiverse_sglang.scheduler.single_pass import BatchSegment, SinglePass, SinglePassPrefill

Settings = dict[str, Any]


@pytest.fixture
def fresh(random_host: SGLangHost) -> Iterator[SGLangHost]:
    """Nothing in its prefix cache; afterwards as it was."""
    random_host.flush()
    before = random_host.configure(chunked_prefill_size=None, is_mixed_chunk=False, single_pass=True)
    yield random_host
    random_host.configure(**before)
    assert not any(random_host.leftovers().values()), random_host.leftovers()


def run(
    host: SGLangHost, binding: Binding, prompts: list[list[int]], tokens: int = 8, logprobs: int | None = 1
) -> tuple[list[Any], Settings]:
    """The answers to `prompts`, and what was counted meanwhile."""
    before = host.counters()
    never = dict.fromkeys(binding.tags, -100.0)
    answers = host.generate(prompts, max_tokens=tokens, logprobs=logprobs, ignore_eos=True, logit_bias=never)
    return answers, {name: count - before[name] for name, count in host.counters().items()}


def test_each_token_is_computed_once_and_all_in_one_forward(fresh: SGLangHost, late: bool, binding: Binding) -> None:
    for prompt in structured_prompts(Random(21), binding, 3):
        for single_pass in (True, False):
            fresh.configure(single_pass=single_pass)
            fresh.flush()
            _, counted = run(fresh, binding, [prompt], tokens=1)
            assert len(prompt) <= counted["scheduled"] <= len(prompt) + late
            assert (counted["extends"] == 1) is single_pass
            assert counted["joins"] == 0 if single_pass else counted["joins"] > 0


def test_the_logprobs_are_those_of_replay_and_of_the_dense_forward(
    fresh: SGLangHost, random_model: Path, binding: Binding
) -> None:
    model, _ = load(str(random_model))
    for prompt in structured_prompts(Random(22), binding, 5):
        found = []
        for single_pass in (True, False):
            fresh.configure(single_pass=single_pass)
            fresh.flush()
            ((answer,), _) = run(fresh, binding, [prompt])
            result = compare(binding, model, prompt, answer)
            assert result.max_difference < TOLERANCE
            assert result.causal_difference > 0.1
            found.append(answer)
        assert found[0].ids == found[1].ids
        assert found[0].logprobs == pytest.approx(found[1].logprobs, abs=TOLERANCE)


@pytest.mark.parametrize("chunk", [37, 500])
def test_prompts_that_sglang_cuts_into_chunks_and_mixes_with_others_are_computed_the_same(
    fresh: SGLangHost, late: bool, random_model: Path, binding: Binding, chunk: int
) -> None:
    """Chunks end anywhere in a block; other prompts, with and without blocks, and decoding are in the same batches."""
    model, _ = load(str(random_model))
    rng = Random(23)
    plain = [[rng.randrange(100) for _ in range(length)] for length in (3, 60, 150)]
    prompts = [plain[0], *structured_prompts(rng, binding, 3, longest=300), *plain[1:]]
    fresh.configure(chunked_prefill_size=chunk)
    answers, counted = run(fresh, binding, prompts, tokens=20)
    results = [compare(binding, model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    assert max(result.max_difference for result in results) < TOLERANCE
    assert counted["joins"] == 0
    needed = sum(map(len, prompts)) + 19 * len(prompts)
    assert needed - 8 * len(prompts) <= counted["scheduled"] <= needed + late * len(prompts)  # a few found as causal
    fresh.flush()
    fresh.configure(is_mixed_chunk=True)
    mixed, counted = run(fresh, binding, prompts, tokens=20, logprobs=None)  # with logprobs SGLang doesn't mix
    assert counted["mixed"] > 0
    assert [answer.ids for answer in mixed] == [answer.ids for answer in answers]


def test_an_abort_between_two_chunks_leaves_nothing(fresh: SGLangHost, binding: Binding) -> None:
    (prompt,) = structured_prompts(Random(29), binding, 1, longest=300)
    fresh.configure(chunked_prefill_size=37)
    for steps in range(len(prompt) // 37 + 2):
        request = fresh.start(prompt)
        for _ in range(steps):
            fresh.step()
        fresh.abort(request)
        assert not any(fresh.leftovers().values()), f"after {steps} steps: {fresh.leftovers()}"


def test_what_the_prefix_cache_has_is_not_computed_again_wherever_in_a_block_it_ends(
    fresh: SGLangHost, late: bool, random_model: Path, binding: Binding
) -> None:
    model, _ = load(str(random_model))
    rng = Random(24)
    for prompt in structured_prompts(rng, binding, 3):
        run(fresh, binding, [prompt])
        plain = [at for at, token in enumerate(prompt) if token < 100 and at > len(prompt) // 4]
        for place in rng.sample(plain, 4):
            other = [*prompt[:place], 100 + rng.randrange(20), *prompt[place + 1 :]]
            assert not binding.tags.keys() & {other[place]}
            ((answer,), counted) = run(fresh, binding, [other])
            assert counted["cached_tokens"] == place
            assert len(other) - place <= counted["scheduled"] - 7 <= len(other) - place + late
            assert compare(binding, model, other, answer).max_difference < TOLERANCE


def test_sglangs_triton_kernels_compute_the_same(random_model: Path, binding: Binding) -> None:
    """All of SGLang's Triton backend, its kernels run by Triton's interpreter where there is no GPU."""
    model, _ = load(str(random_model))
    host = SGLangHost(str(random_model), settings={"attention_backend": "triton"})
    assert host.ask("tp_worker.model_runner.prefill_attention_backend_str") == "triton"
    prompts = structured_prompts(Random(28), binding, 2, longest=250)
    for chunk in (None, 61):
        host.flush()
        host.configure(chunked_prefill_size=chunk)
        answers, counted = run(host, binding, prompts, tokens=2)
        results = [compare(binding, model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        assert max(result.max_difference for result in results) < TOLERANCE
        assert min(result.causal_difference for result in results) > 0.1
        assert counted["joins"] == 0
    assert not any(host.leftovers().values()), host.leftovers()
    host.close()


def test_prompts_beyond_half_of_the_rows_are_replayed(fresh: SGLangHost, random_model: Path, binding: Binding) -> None:
    model, _ = load(str(random_model))
    prompts = structured_prompts(Random(25), binding, 24, longest=500)
    answers, counted = run(fresh, binding, prompts)
    blocks = sum(len([b for b in parse_ids(prompt, binding).walk() if b.parallel]) for prompt in prompts)
    assert 0 < counted["joins"] < blocks
    results = [compare(binding, model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    assert max(result.max_difference for result in results) < TOLERANCE


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
