"""New weights while trees run on vLLM: nothing is computed with KV of the old ones (SEMANTICS section 8)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("vllm", reason="these are vLLM's own controls")

import torch
from test_vllm_operator import advance, begin, members, prompts
from vllm_host import VLLMHost

from multiverse.decoding.document import to_transcript
from multiverse.oracle import check
from multiverse_vllm.compat import WEIGHT_VERSION_SPANS

__all__ = ["prompts"]


def scale(model: Any) -> None:
    """Other weights: what enters attention is larger by half, in every layer, and so all keys and values change."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("input_layernorm.weight"):
                weight.mul_(1.5)


@pytest.fixture
def updated(host: VLLMHost) -> Iterator[Callable[[], None]]:
    """Gives the engine's model other weights; the old ones come back in the end."""
    model = host.core.model_executor.driver_worker.worker.model_runner.model
    kept = {name: weight.clone() for name, weight in model.named_parameters()}
    yield lambda: scale(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(kept[name])
    host.core.reset_prefix_cache(reset_running_requests=True)


@pytest.mark.parametrize("steps", [20, 45, 80])
def test_after_new_weights_everything_is_computed_with_them(
    host: VLLMHost, tiny: tuple[Any, Any], prompts: list[list[int]], updated: Callable[[], None], steps: int
) -> None:
    """What was said under the old weights stands; what follows is what the new ones say, over KV of their own."""
    old, new = tiny[0], copy.deepcopy(tiny[0])
    scale(new)
    seen = begin(host, prompts, logprobs=0, max_tokens=250, multiverse={"return_tree": True})
    advance(host, seen, steps)
    trees = list({id(member.tree): member.tree for member in members(host)}.values())
    said = [{strand.key: len(strand.tokens) for strand in tree.controller.root.walk()} for tree in trees]
    host.core.pause_scheduler("keep")
    updated()
    older, newer = host.core.get_weight_version(), f"updated after {steps} steps"
    host.core.set_weight_version(newer)
    host.core.resume_scheduler()
    spans = {}
    for _ in range(2000):
        for output in host.llm.llm_engine.step():
            spans[output.request_id] = getattr(output.outputs[0], "weight_versions", None)
        if not host.leftovers()["requests"]:
            break
    later, stale = 0, 0.0
    for tree, before in zip(trees, said, strict=True):
        logprobs = tree.rows.values(tree.controller.root)
        for key, count in before.items():
            logprobs[key][:count] = [None] * count
        transcript = to_transcript(tree.controller, logprobs)
        found = check(transcript, new)
        assert found.max_difference < 1e-4
        stale = max(stale, check(transcript, old).max_difference)
        later += found.compared
        places = [(strand.key, at) for strand, start, end in tree.controller.root.spans() for at in range(start, end)]
        names = [older if at < before.get(key, 0) else newer for key, at in places]
        told = spans[tree.root.request.request_id.rpartition("-")[0]]
        if WEIGHT_VERSION_SPANS:
            assert [span.version for span in told for _ in range(span.start, span.end)] == names
    assert later > 100
    assert stale > 1e-2
