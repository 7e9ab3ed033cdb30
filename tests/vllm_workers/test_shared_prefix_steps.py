"""Which decode steps of vLLM are ours, and what becomes of them where something is in the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from caches import layers_of, make_runner
from vllm.config import CUDAGraphMode

from multiverse.attention.shared_prefix import Pass
from multiverse.errors import UnsupportedHostError
from multiverse_vllm.attention.around import StepAttention, StepBuilder, put_around
from multiverse_vllm.attention.steps import SharedPrefixSteps
from multiverse_vllm.channels import STEP
from multiverse_vllm.refusals import refuse_shared_prefix

PREFIX = list(range(9, 22))
"""Blocks of 64 tokens."""


class Theirs:
    """vLLM's builder and its implementation of a layer, as far as ours looks at them."""

    head_size = 32

    def build(self, *_: Any) -> SimpleNamespace:
        return SimpleNamespace(block_table="table")

    def forward(self, *_: Any) -> str:
        return "theirs"


class Builder(StepBuilder, Theirs):
    """As ours are made."""


class Attention(StepAttention, Theirs):
    """Likewise."""


class Dispatcher:
    """V1's choice of graphs."""

    def dispatch(self, num_tokens: int, invalid_modes: Any = None) -> Any:  # noqa: ARG002
        return invalid_modes


class Manager:
    """V2's."""

    def dispatch(self, num_reqs: int, num_tokens: int, uniform: int | None, max_query_len: int | None) -> Any:  # noqa: ARG002
        return uniform, max_query_len


def a_runner(monkeypatch: pytest.MonkeyPatch, **graphs: Any) -> Any:
    monkeypatch.setenv("MULTIVERSE_SHARED_PREFIX", "always")
    runner = make_runner("TRITON_ATTN")
    runner.attn_groups = [[SimpleNamespace(metadata_builders=[Builder()])]]
    runner.vllm_config.scheduler_config = SimpleNamespace(max_num_seqs=8)
    runner.vllm_config.speculative_config = None
    runner.model_config.dtype, runner.model_config.get_total_num_kv_heads = torch.float32, lambda: 3
    vars(runner).update(graphs or {"cudagraph_dispatcher": Dispatcher()})
    return runner


def step(new: dict[str, list[int]], known: dict[str, int], *finished: str, **more: int) -> Any:
    """What vLLM's scheduler sends: requests that come, with their blocks, and those that go on, with their lengths."""
    scheduled = dict.fromkeys([*new, *known], 1) | more
    come = [
        SimpleNamespace(req_id=name, block_ids=(blocks,), num_computed_tokens=len(blocks) * 64 - 8)
        for name, blocks in new.items()
    ]
    cached = SimpleNamespace(
        req_ids=list(known),
        resumed_req_ids=set(),
        new_block_ids=[None] * len(known),
        num_computed_tokens=list(known.values()),
    )
    return SimpleNamespace(
        scheduled_new_reqs=come,
        scheduled_cached_reqs=cached,
        finished_req_ids=set(finished),
        num_scheduled_tokens=scheduled,
        total_num_scheduled_tokens=sum(scheduled.values()),
    )


def passes_of(steps: SharedPrefixSteps, sent: Any, order: str) -> list[Pass] | None:
    steps.begin(sent)
    steps.order(order.split())
    taken = steps.take()
    return None if taken is None else taken._passes


def test_a_step_is_ours_if_every_row_decodes_and_enough_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are those of the batch, in whatever order vLLM has them, and a request is what it last came as."""
    steps = put_around(a_runner(monkeypatch))
    three = {name: [*PREFIX, last] for name, last in (("a", 30), ("b", 31), ("c", 32))}
    assert passes_of(steps, step(three, {}, a=5), "a b c") is None, "a prompt"
    known = {"a": 889, "b": 889, "c": 893}
    group = Pass((2, 0, 1), 2, 0, 13 * 64)
    own = [Pass((0,), 0, 832, 890), Pass((1,), 1, 832, 894), Pass((2,), 2, 832, 890)]
    assert passes_of(steps, step({}, known), "b c a") == [group, own[2], own[0], own[1]]
    assert not steps.pending
    assert steps.take() is None, "what comes next is a dummy run"
    assert passes_of(steps, step({"d": [1, 2]}, {"a": 890}, "b", "c"), "d a") is None, "nothing shared"
    assert passes_of(steps, step({"b": [40], "c": PREFIX}, {"a": 891}), "a b c") is None, "too little is saved by two"
    resumed = step({}, {"a": 892, "b": 832, "c": 832, "d": 126})
    resumed.scheduled_cached_reqs.resumed_req_ids, resumed.scheduled_cached_reqs.new_block_ids[1] = {"b"}, (PREFIX,)
    shared = passes_of(steps, resumed, "a b c d")
    assert shared is not None
    assert shared[0].queries == (0, 1, 2)
    assert passes_of(steps, step({}, {"never seen": 9, "a": 893}), "a never") is None


def test_what_cant_be_laid_out_is_vllms_in_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = a_runner(monkeypatch)
    steps, builder, layer, output = put_around(runner), runner.attn_groups[0][0].metadata_builders[0], Attention(), []
    metadata = builder.build(0, None)
    assert getattr(metadata, STEP) is None
    assert layer.forward(*[None] * 5, metadata, output) == "theirs"  # type: ignore[arg-type]
    steps.begin(step({name: [*PREFIX, last] for name, last in (("a", 30), ("b", 31), ("c", 32), ("d", 33))}, {}))
    steps.order("abcd")
    tried: list[Any] = []

    def fails(*arguments: Any) -> None:
        tried.append(arguments)
        raise RuntimeError("planted")

    monkeypatch.setattr(steps._engine, "prepare", fails)
    metadata = builder.build(0, None)
    for _ in range(3):
        assert layer.forward(*[None] * 5, metadata, output) == "theirs"  # type: ignore[arg-type]
    assert (len(tried), steps.taken) == (1, 0)


def test_a_step_of_ours_takes_no_graph_that_holds_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = step({name: [*PREFIX, last] for name, last in (("a", 30), ("b", 31), ("c", 32), ("d", 33))}, {})
    dispatcher, manager = Dispatcher(), Manager()
    for steps in (
        put_around(a_runner(monkeypatch, cudagraph_dispatcher=dispatcher)),
        put_around(a_runner(monkeypatch, cudagraph_manager=manager)),
    ):
        steps.begin(ours)
    assert dispatcher.dispatch(4) == {CUDAGraphMode.FULL}
    assert dispatcher.dispatch(4, invalid_modes={CUDAGraphMode.PIECEWISE}) == {
        CUDAGraphMode.FULL,
        CUDAGraphMode.PIECEWISE,
    }
    assert manager.dispatch(4, 4, 1, max_query_len=1) == (None, None)
    steps.take()
    assert manager.dispatch(4, 4, 1, max_query_len=1) == (1, 1)


def test_what_our_kernels_cant_read_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = a_runner(monkeypatch)
    layers = layers_of(runner)
    refuse_shared_prefix(runner, layers, ours=True)
    with pytest.raises(UnsupportedHostError, match="--multiverse-shared-prefix and the attention backend TRITON_ATTN"):
        refuse_shared_prefix(runner, layers, ours=False)
    runner.vllm_config.speculative_config, runner.model_config.dtype = "n-grams", torch.bfloat16
    layers[1].impl.logits_soft_cap, layers[1].impl.sinks, layers[1].impl.num_heads = 30.0, torch.ones(3), 6
    wanted = "speculative decoding.*a KV cache in torch.float32.*capped attention scores.*sinks.*different heads"
    with pytest.raises(UnsupportedHostError, match=wanted):
        refuse_shared_prefix(runner, layers, ours=True)
