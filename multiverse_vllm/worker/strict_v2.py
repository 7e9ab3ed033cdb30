"""Strict mode through the logits processor interface of vLLM's V2 model runner, which knows requests by their slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcessor, LogitsProcRequestState

from multiverse.decoding.strict import StrictMask
from multiverse.serving.options import Options
from multiverse_vllm.channels import STRICT_START
from multiverse_vllm.tokenizer import bind_model

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


@dataclass
class _Slot:
    """One request: its mask, and how many of its tokens, from the prompt's first one on, that mask has seen."""

    mask: StrictMask
    seen: int


class StrictTagsV2(LogitsProcessor):
    """Masks the tags that the grammar does not allow, for requests that ask for it."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        self._binding = bind_model(vllm_config.model_config, Options.from_environment())
        self._requests = req_states
        self._slots: dict[int, _Slot] = {}

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Begin anew in a slot that another request may have had; returns whether this one is masked."""
        self._slots.pop(req_idx, None)
        start = (sampling_params.extra_args or {}).get(STRICT_START)
        if start is not None:
            seen = int(self._requests.prompt_len.np[req_idx]) + start.outputs
            self._slots[req_idx] = _Slot(StrictMask(self._binding, start), seen)
        return start is not None

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Mask `logits`, a float tensor `[requests, vocabulary]`, in place.

        What was sampled is on the device only, so a batch with such a request waits for the step before it.
        """
        indices = ctx.idx_mapping_np.tolist()
        assert len(logits) == len(indices), "a row for each request: drafts are refused at start"
        followed = [(row, index) for row, index in enumerate(indices) if index in self._slots]
        self._follow({index: int(ctx.seq_lens_upper_bound_np[row]) for row, index in followed})
        banned = [(row, token) for row, index in followed for token in self._slots[index].mask.banned]
        if banned:
            rows, tokens = torch.tensor(list(zip(*banned, strict=True)), device=logits.device)
            logits[rows, tokens] = -torch.inf
        return logits

    def _follow(self, lengths: dict[int, int]) -> None:
        """Show the masks what their requests, by slot, hold by now."""
        new = [(index, at) for index, length in lengths.items() for at in range(self._slots[index].seen, length)]
        if not new:
            return
        indices, places = (list(each) for each in zip(*new, strict=True))
        for index, token in zip(indices, self._requests.all_token_ids.gpu[indices, places].tolist(), strict=True):
            self._slots[index].mask.accept(token)
            self._slots[index].seen += 1
