"""KV of blocks in the radix tree, under a key that says how it was computed.

A key of the tree is a list of 64-bit integers. The lower half of each is a token id; the upper half is 0 where a token
was computed causally and else a digest of its place in the layout: how far its position is off its index, and which
earlier tokens it does not see. So a follow-up turn of a conversation finds the blocks of the turn before it, and a
request whose tokens mean something else never does.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any

from sglang.srt.mem_cache.base_prefix_cache import InsertParams
from sglang.srt.mem_cache.common import match_kv_cache
from sglang.srt.mem_cache.radix_cache import RadixKey

from multiverse.document import to_transcript
from multiverse.layout import Layout, layout
from multiverse_sglang.tree import Held, RequestTree


def layout_key(ids: Sequence[int], laid: Layout) -> array[int]:
    """The key of `ids`, laid out as `laid`: one integer per token."""
    key = array("q", ids)
    for segment in laid.segments:
        shift = segment.position - segment.start
        if shift or segment.hidden:
            mark = _digest(repr((shift, segment.hidden))) << 32
            for i in range(segment.start, min(segment.end, len(key))):
                key[i] |= mark
    return key


def _digest(text: str) -> int:
    """31 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1 or 1


class LayoutCache:
    """The radix tree for sequences that hold blocks."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def insert(self, tree: RequestTree, held: Held) -> None:
        """Enter a finished root's sequence; the tree then owns all of its slots."""
        controller = tree.controller
        transcript = to_transcript(controller)
        laid = layout(transcript, controller.separators, controller.binding.dialect.join)
        length = len(held.slots)
        key = layout_key(transcript.ids[:length], laid)
        client = tree.client
        if length > held.own and self._cache.supports_prefix_sharing():
            self._cache.insert(
                InsertParams(
                    key=RadixKey(key, client.extra_key, cache_salt=client.cache_salt),
                    value=held.slots,
                    prev_prefix_len=held.own,
                    inserted_len=held.own,
                    priority=client.priority or 0,
                )
            )
            held.own = length

    def find(self, tree: RequestTree) -> Held | None:
        """What the radix tree has of a prompt with blocks, locked."""
        prompt = tree.controller.prompt
        client = tree.client
        match_kv_cache(client, self._cache, layout_key(prompt.ids, prompt.layout), max_prefix_len=len(prompt.ids) - 1)
        if client.prefix_len == 0:
            return None
        lock = self._cache.lock(client.last_node)
        slots = self._cache.prefix_device_indices(client).clone()
        return Held(slots, len(slots), lock)
