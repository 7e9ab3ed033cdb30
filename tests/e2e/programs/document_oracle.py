"""The reference for documents with branches: one dense forward, mask and positions written out token by token."""

from __future__ import annotations

from typing import Any

import torch

from multiverse.attention import additive

Items = list[Any]
"""A document: texts, token ids in a tuple, and forks: a list of branches, each an offset and a document."""


class Oracle:
    """Rates documents with one forward (SEMANTICS section 2)."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @torch.inference_mode()
    def logprobs(self, items: Items) -> torch.Tensor:
        ids: list[int] = []
        positions: list[int] = []
        visible: list[list[int]] = []

        def write(items: Items, seen: list[int], position: int) -> tuple[list[int], int]:
            for item in items:
                if isinstance(item, list):
                    written = [write(branch, seen, position + offset) for offset, branch in item]
                    seen = seen + [i for after, _ in written for i in after[len(seen) :]]
                    position = max(end for _, end in written)
                    continue
                for token in self.ids(item) if isinstance(item, str) else item:
                    seen = [*seen, len(ids)]
                    ids.append(token)
                    positions.append(position)
                    visible.append(seen)
                    position += 1
            return seen, position

        write(items, [], 0)
        mask = torch.zeros(len(ids), len(ids), dtype=torch.bool)
        for row, seen in enumerate(visible):
            mask[row, seen] = True
        output = self.model(
            input_ids=torch.tensor([ids]),
            position_ids=torch.tensor([positions]),
            attention_mask=additive(mask[None, None]),
            use_cache=False,
        )
        return output.logits[0].log_softmax(-1)

    def difference(self, before: Items, info: dict[str, Any]) -> float:
        """The largest difference to what a server reported for the tokens that it generated behind a document."""
        ids = [token for _, token, _ in info["output_token_logprobs"]]
        rows = self.logprobs([*before, tuple(ids[:-1])])[-len(ids) :]
        reported = [(i, token, value) for i, top in enumerate(info["output_top_logprobs"]) for value, token, _ in top]
        return max(abs(rows[i, token].item() - value) for i, token, value in reported)
