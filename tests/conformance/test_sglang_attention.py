"""Attention of ours in SGLang: it computes what SGLang's own does, and reads what branches share once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

pytest.importorskip("sglang", reason="the attention backend belongs to SGLang's adapter")

from device import ON_CPU
from sglang_host import SGLangHost
from test_answers import TOLERANCE, compare, encode

from multiverse import Binding
from multiverse.attention.batched import WORTH
from multiverse.models import TINY
from multiverse.models.task import Problem

SAME = 2e-5


def block(rng: Random, tokenizer: Any, tokens: int, outlines: int) -> list[int]:
    """A prompt of so many tokens that ends where branches begin."""
    goal = tokenizer.encode("<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * outlines + "</Goal>")
    return [rng.randrange(100) for _ in range(tokens - len(goal))] + goal


on_cpu = pytest.mark.skipif(not ON_CPU, reason="a backend of ours is chosen on a CPU")
on_cuda = pytest.mark.skipif(ON_CPU, reason="around a backend of SGLang's that needs CUDA")


@on_cpu
def test_what_branches_share_is_read_once_where_that_saves_something(
    host: SGLangHost, tiny: tuple[Any, Any], binding: Binding
) -> None:
    """Shared + own, never rows x shared. Pages that are not full are copied: each branch has its own."""
    model, tokenizer = tiny
    never = dict.fromkeys([*binding.tags, tokenizer.eos_token_id], -100.0)
    prompts = [block(Random(41), tokenizer, tokens, outlines) for tokens, outlines in ((500, 8), (180, 2))]
    for prompt, worth in zip(prompts, (True, False), strict=True):
        host.kv_reads()
        (answer,) = host.generate([prompt], max_tokens=150, logprobs=1, logit_bias=never)
        steps = [step for step in host.kv_reads() if step[2] > step[1]]
        assert any(rows - there >= WORTH for _, there, rows in steps) is worth
        for read, there, rows in steps:
            assert read == (there if rows - there >= WORTH else rows)
        assert compare(binding, model, prompt, answer).max_difference < TOLERANCE
    assert not any(host.leftovers().values()), host.leftovers()


@on_cpu
def test_logprobs_are_those_of_torch_native(
    host: SGLangHost, page: int, tiny: tuple[Any, Any], binding: Binding, problems: list[Problem]
) -> None:
    """Short and long rows, blocks nested and side by side, forked in the same steps: the same tokens, to 2e-5."""
    tokenizer = tiny[1]
    native = SGLangHost(str(TINY), settings={"attention_backend": "torch_native", "page_size": page})
    prompts = [encode(tokenizer, problem) for problem in problems[:3]] + [block(Random(43), tokenizer, 400, 6)]
    never = dict.fromkeys(binding.tags, -100.0)
    for batch, options in ((prompts[:3], {}), (prompts[3:], {"logit_bias": never, "ignore_eos": True})):
        expected = native.generate(batch, max_tokens=300, logprobs=1, **options)
        found = host.generate(batch, max_tokens=300, logprobs=1, **options)
        assert [answer.ids for answer in found] == [answer.ids for answer in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, rel=0, abs=SAME)
    native.close()


@on_cuda
def test_logprobs_around_sglangs_own_backend_are_its_own(
    host: SGLangHost, page: int, tiny: tuple[Any, Any], binding: Binding, problems: list[Problem]
) -> None:
    """With CUDA graphs, for steps that are SGLang's, and without for ours: what is shared is read once, to 2e-5."""
    model, tokenizer = tiny
    backend = {"attention_backend": "multiverse-triton", "page_size": page}
    ours = SGLangHost(str(TINY), settings=backend, shared_prefix="always")
    prompts = [encode(tokenizer, problem) for problem in problems[:6]]
    prompts += [block(Random(43), tokenizer, 400, 6), block(Random(44), tokenizer, 700, 16)]
    never = dict.fromkeys(binding.tags, -100.0)
    shared = 0
    for batch, options in ((prompts[:6], {}), (prompts[6:], {"logit_bias": never, "ignore_eos": True})):
        expected = host.generate(batch, max_tokens=300, logprobs=1, **options)
        ours.kv_reads()
        found = ours.generate(batch, max_tokens=300, logprobs=1, **options)
        steps = [step for step in ours.kv_reads() if step[0]]
        assert all(there <= read <= rows for read, there, rows in steps)
        shared += sum(read < rows for read, _, rows in steps)
        assert [answer.ids for answer in found] == [answer.ids for answer in expected]
        for prompt, one, other in zip(batch, found, expected, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, rel=0, abs=SAME)
            assert compare(binding, model, prompt, one).max_difference < TOLERANCE
    assert shared > 50
    assert not any(ours.leftovers().values()), ours.leftovers()
    ours.close()
