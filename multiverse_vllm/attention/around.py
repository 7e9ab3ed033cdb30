"""What our backends have in common, and how they come to the model runner that decides which steps are theirs.

Prompts, steps without groups and whatever a CUDA graph holds stay vLLM's. Full graphs were captured with vLLM's own
attention inside, so a step that is ours is kept out of them: it runs with the piecewise graphs that vLLM has for
batches with prompts, or without any. What that costs is in the table that decides (`multiverse.serving.sharing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.config import CUDAGraphMode

from multiverse_vllm.channels import STEP
from multiverse_vllm.refusals import refuse_shared_prefix

if TYPE_CHECKING:
    from multiverse_vllm.attention.steps import SharedPrefixSteps, Step


class StepBuilder:
    """Of metadata, around vLLM's builder.

    Attributes:
        steps: of the runner that it builds for, once its KV cache is there.
    """

    steps: SharedPrefixSteps | None = None

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Any:
        """As vLLM does, in any case; of a step that is ours, with that step."""
        metadata = super().build(common_prefix_len, common_attn_metadata, fast_build)  # type: ignore[misc]
        if self.steps is not None:
            setattr(metadata, STEP, self.steps.take())
        return metadata


class StepAttention:
    """Of one layer, around vLLM's implementation."""

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend, and write to `output`, `[tokens, heads, width]`."""
        step: Step | None = getattr(attn_metadata, STEP, None)
        if step is not None and output_scale is None and output_block_scale is None:
            found = step.attend(self, query, kv_cache, attn_metadata.block_table)
            if found is not None:
                output[: len(found)] = found
                return output
        theirs: torch.Tensor = super().forward(  # type: ignore[misc]
            layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
        )
        return theirs


def put_around(runner: Any) -> SharedPrefixSteps:
    """Let our backends in `runner`, whose KV cache was just made, know which steps are theirs.

    Raises:
        UnsupportedHostError: if the model or the configuration needs something else.
    """
    builders = [builder for groups in runner.attn_groups for group in groups for builder in group.metadata_builders]
    names = runner.kv_cache_config.kv_cache_groups[0].layer_names
    layers = [runner.compilation_config.static_forward_context[name] for name in names]
    refuse_shared_prefix(runner, layers, all(isinstance(builder, StepBuilder) for builder in builders))
    from multiverse_vllm.attention.steps import SharedPrefixSteps  # needs Triton, as our backends do

    steps = SharedPrefixSteps(runner, layers[0])
    for builder in builders:
        builder.steps = steps
    _keep_out_of_full_graphs(runner, steps)
    return steps


def _keep_out_of_full_graphs(runner: Any, steps: SharedPrefixSteps) -> None:
    """Choose a graph for a step that is ours as for a batch with prompts."""
    if hasattr(runner, "cudagraph_dispatcher"):  # V1
        dispatcher = runner.cudagraph_dispatcher
        dispatch = type(dispatcher).dispatch

        def dispatch_v1(*args: Any, **kwargs: Any) -> Any:
            if steps.pending:
                kwargs["invalid_modes"] = {*(kwargs.get("invalid_modes") or ()), CUDAGraphMode.FULL}
            return dispatch(dispatcher, *args, **kwargs)

        dispatcher.dispatch = dispatch_v1
    else:
        manager = runner.cudagraph_manager
        choose = type(manager).dispatch

        def dispatch_v2(num_reqs: int, num_tokens: int, uniform_token_count: int | None, **kwargs: Any) -> Any:
            if steps.pending:
                uniform_token_count = kwargs["max_query_len"] = None
            return choose(manager, num_reqs, num_tokens, uniform_token_count, **kwargs)

        manager.dispatch = dispatch_v2
