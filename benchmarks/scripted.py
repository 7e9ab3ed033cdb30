"""A logits processor for vLLM that lets any model write a block of a given width: goal, paths and conclusion.

`vllm serve --logits-processors scripted:Scripted`; requests have `vllm_xargs: {"scripted": WIDTH}`. Tokens are sampled
one by one, as by a model that has learned to write blocks, but for what the engine writes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from multiverse.serving.options import Options
from multiverse.structure.dialects import Tag
from multiverse_vllm.tokenizer import bind_model

if TYPE_CHECKING:
    from vllm import SamplingParams

LEAD, PATH, END = 8, 32, 8
"""Tokens before a goal, of a path and of a conclusion."""
_SEEN = 512
"""Tokens in which the last tag is looked for."""


class Scripted(AdapterLogitsProcessor):
    """Leaves each row one token to sample, which follows from the last tag before it."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._binding = bind_model(vllm_config.model_config, Options.from_environment())
        self._filler = self._binding.encode("x")[0]

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Any:
        width = (params.extra_args or {}).get("scripted")
        if width is None:
            return None
        goal = self._binding.goal([str(ordinal) for ordinal in range(1, int(width) + 1)])

        def only(prompt: list[int], said: list[int], logits: torch.Tensor) -> torch.Tensor:
            allowed = torch.full_like(logits, -torch.inf)
            allowed[self._next(goal, prompt, said)] = 0.0
            return allowed

        return only

    def _next(self, goal: Sequence[int], prompt: Sequence[int], said: Sequence[int]) -> int:
        ids = [*prompt[-_SEEN:], *said][-_SEEN:]
        tag, since = self._last_tag(ids)
        closing = {Tag.PATH_OPEN: (PATH, Tag.PATH_CLOSE), Tag.CONCLUSION_OPEN: (END, Tag.CONCLUSION_CLOSE)}
        if tag is None:
            return goal[0] if len(said) == LEAD else self._filler
        if tag in closing:
            length, close = closing[tag]
            return self._filler if since < length else self._binding.ids[close]
        if tag is Tag.CONCLUSION_CLOSE:
            return self._binding.ids[Tag.BLOCK_CLOSE]
        if tag is Tag.BLOCK_CLOSE:
            return self._filler
        written = 1 + ids[::-1].index(goal[0])
        return goal[written] if written < len(goal) else self._filler  # what comes behind a goal is dropped

    def _last_tag(self, ids: Sequence[int]) -> tuple[Tag | None, int]:
        """Which it is, and how many tokens stand behind it."""
        for since, token in enumerate(reversed(ids)):
            if (tag := self._binding.tag(token)) is not None:
                return tag, since
        return None, len(ids)
