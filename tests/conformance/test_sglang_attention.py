"""SGLang's attention on a CPU: ours computes what `torch_native` does, and reads what branches share once."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("sglang", reason="the attention backend belongs to SGLang's adapter")

from sglang_host import SGLangHost
from test_answers import TOLERANCE, compare, encode

from multiverse import Binding
from multiverse.attention.batched import WORTH
from multiverse.attention.shared_prefix import Group
from multiverse.errors import UnsupportedHostError
from multiverse.models import TINY
from multiverse.models.task import Problem
from multiverse.oracle import load

SAME = 2e-5


def block(rng: Random, tokenizer: Any, tokens: int, outlines: int) -> list[int]:
    """A prompt of so many tokens that ends where branches begin."""
    goal = tokenizer.encode("<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * outlines + "</Goal>")
    return [rng.randrange(100) for _ in range(tokens - len(goal))] + goal


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


def test_triton_computes_what_branches_share_around_sglangs_own_backend(
    tiny: tuple[Any, Any], random_model: Path, binding: Binding
) -> None:
    """Steps with groups are ours, read once; all others SGLang's. Every kernel runs in Triton's interpreter."""
    settings = {"attention_backend": "multiverse-triton"}
    host = SGLangHost(str(random_model), settings=settings, shared_prefix="always")
    tokenizer = tiny[1]
    never = dict.fromkeys([*binding.tags, tokenizer.eos_token_id], -100.0)
    prompt = block(Random(47), tokenizer, 440, 6)
    host.kv_reads()
    (answer,) = host.generate([prompt], max_tokens=90, logprobs=1, logit_bias=never)
    steps = host.kv_reads()
    ours = [(read, there) for read, there, rows in steps if rows - there >= WORTH]
    assert ours
    assert all(read == there for read, there in ours)
    assert {read for read, there, rows in steps if rows == there} == {0}, "a step without groups is SGLang's"
    model, _ = load(str(random_model))
    assert compare(binding, model, prompt, answer).max_difference < TOLERANCE
    assert not any(host.leftovers().values()), host.leftovers()
    host.close()


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("multiverse-triton", {"decode_attention_backend": "torch_native"}, "another backend for prompts"),
    ],
)
def test_what_our_steps_cant_be_put_around_is_refused_by_name(name: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedHostError, match=reason):
        SGLangHost(str(TINY), settings={"attention_backend": name} | settings)


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


class Theirs:
    """A backend of SGLang, as far as our steps look at it."""

    def __init__(self) -> None:
        self.planned = self.decoded = 0

    def init_forward_metadata(self, _: Any) -> None:
        self.planned += 1

    def forward_decode(self, *_: Any, **__: Any) -> str:
        self.decoded += 1
        return "theirs"


def runner_of(backend: Theirs) -> SimpleNamespace:
    pool = SimpleNamespace(get_key_buffer=lambda _: "keys", get_value_buffer=lambda _: "values")
    return SimpleNamespace(
        attn_backend=backend,
        decode_cuda_graph_runner="graphs",
        req_to_token_pool=SimpleNamespace(req_to_token="table"),
        token_to_kv_pool=pool,
        model_config=SimpleNamespace(get_total_num_kv_heads=lambda: 8),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_only_steps_that_pay_are_ours_and_only_while_they_last(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a graph; one that can't be planned is SGLang's all the same."""
    from multiverse_sglang.attention.around import SharedPrefixSteps, told
    from multiverse_sglang.channels import STEPS

    class Engine:
        def prepare(self, passes: Any, table: Any, rows: Any, queries: int) -> None:
            assert (table, rows, queries, len(passes)) == ("table", "rows", 4, 5)
            if fails:
                raise RuntimeError("planted")

        def __call__(self, query: torch.Tensor, *_: Any) -> torch.Tensor:
            return query

    monkeypatch.setenv("MULTIVERSE_SHARED_PREFIX", "always")
    theirs = Theirs()
    runner = runner_of(theirs)
    setattr(theirs, STEPS, SharedPrefixSteps(theirs, Engine(), runner))
    mode = SimpleNamespace(is_decode=lambda: True)
    lengths = torch.full((4,), 1010)
    forward = SimpleNamespace(forward_mode=mode, seq_lens=lengths, seq_lens_cpu=None, req_pool_indices="rows")
    layer = SimpleNamespace(tp_q_head_num=2, qk_head_dim=3, layer_id=0, scaling=1.0)

    def step() -> tuple[Any, Any]:
        theirs.init_forward_metadata(forward)
        return theirs.forward_decode(torch.zeros(4, 6), None, None, layer, forward), runner.decode_cuda_graph_runner

    with told(runner, [Group((0, 1, 2, 3), 1000)]):
        found, graphs = step()
        assert graphs is None
    assert (isinstance(found, str), theirs.kv_tokens) == (fails, 0 if fails else 1040)
    assert theirs.planned == 1, "so that SGLang can go on where we can't"
    with told(runner, ()):
        assert step() == ("theirs", "graphs")
    assert step() == ("theirs", "graphs")
    assert theirs.decoded == 2 + fails
