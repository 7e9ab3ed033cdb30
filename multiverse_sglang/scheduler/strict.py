"""Strict mode as a grammar of SGLang's own: tags that the controller does not allow are masked before sampling.

SGLang delays the sampling of batches with grammars until the results before are known, also under the overlap
scheduler, so the controller has always seen the last token when a mask is filled. The mask is that of xgrammar and
llguidance, one bit per token, so that batches may hold requests with grammars of clients too.
"""

from __future__ import annotations

import functools

import torch
from sglang.srt.constrained.xgrammar_backend import XGrammarGrammar

from multiverse.decoding.strand import Status, Strand
from multiverse_sglang.scheduler.tree import RequestTree

_NOTHING: list[tuple[int, int]] = []


class StrictTags(XGrammarGrammar):
    """What one strand may sample. It follows the controller, so it takes no tokens itself."""

    def __init__(self, tree: RequestTree, strand: Strand) -> None:
        self._finished = False
        self.grammar_stats = self.current_token = None
        self._tree = tree
        self._strand = strand
        self._tags = frozenset(tree.controller.binding.ids.values())

    def accept_token(self, token: int) -> None:
        """Nothing: the controller has it already."""

    def is_terminated(self) -> bool:
        """Never by the grammar."""
        return False

    def copy(self) -> StrictTags:
        """Itself: it has no state."""
        return self

    def fill_vocab_mask(self, vocab_mask: torch.Tensor, idx: int) -> None:
        """Clear the bits of the tags that must not come next in row `idx` of `vocab_mask`, int32 `[batch, words]`."""
        if self._strand.status is Status.RUNNING:
            words: list[tuple[int, int]] = self._tree.guard.run(self._tree, self._masked, otherwise=_NOTHING)
            for word, bits in words:
                vocab_mask[idx, word] &= bits

    def _masked(self) -> list[tuple[int, int]]:
        return _words(self._tags - self._tree.controller.allowed(self._strand))


@functools.lru_cache(maxsize=1024)
def _words(banned: frozenset[int]) -> list[tuple[int, int]]:
    """By word of the mask, the bits that stay, as a signed 32-bit integer."""
    cleared: dict[int, int] = {}
    for token in banned:
        cleared[token // 32] = cleared.get(token // 32, 0) | 1 << token % 32
    return [(word, ~bits if bits < 1 << 31 else ~bits & 0x7FFFFFFF) for word, bits in cleared.items()]
