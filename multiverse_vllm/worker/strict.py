"""Strict mode through vLLM's logits processor interface (that of the V1 model runner)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from multiverse.decoding.strict import StrictMask, StrictStart
from multiverse.serving.options import Options
from multiverse.structure.binding import Binding
from multiverse_vllm.channels import STRICT_START
from multiverse_vllm.tokenizer import bind_model

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class _Row:
    """One request of the batch: its mask, and vLLM's growing list of what it has sampled."""

    def __init__(self, binding: Binding, start: StrictStart, output: list[int]) -> None:
        self._mask = StrictMask(binding, start)
        self._output = output
        self._seen = start.outputs

    def banned(self) -> list[int]:
        """Ids that must not be sampled next."""
        while self._seen < len(self._output):
            self._mask.accept(self._output[self._seen])
            self._seen += 1
        return self._mask.banned


class StrictTags(LogitsProcessor):
    """Masks the tags that the grammar does not allow, for requests that ask for it."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002
        self._binding = bind_model(vllm_config.model_config, Options.from_environment())
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """A masked tag may have been the likeliest token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that come, go and change their row."""
        process_dict_updates(self._rows, batch_update, self._make_row)

    def _make_row(self, params: SamplingParams, _prompt: list[int] | None, output: list[int]) -> _Row | None:
        start = (params.extra_args or {}).get(STRICT_START)
        return None if start is None else _Row(self._binding, start, output)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask `logits`, a float tensor `[requests, vocabulary]`, in place."""
        rows: list[int] = []
        tokens: list[int] = []
        for index, row in self._rows.items():
            banned = row.banned()
            rows += [index] * len(banned)
            tokens += banned
        if rows:
            logits[torch.tensor(rows, device=logits.device), torch.tensor(tokens, device=logits.device)] = -torch.inf
        return logits
