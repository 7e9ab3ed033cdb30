"""SGLang: the blocks of a prompt are computed in one forward, and that changes nothing but the number of forwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("sglang", reason="single-pass prefill belongs to SGLang's adapter")

from prompts import structured_prompts
from sglang_host import SGLangHost
from test_answers import TOLERANCE, compare

from multiverse import Binding, parse_ids
from multiverse.oracle import load


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
) -> tuple[list[Any], dict[str, Any]]:
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
