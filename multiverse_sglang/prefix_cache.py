"""KV of blocks in the radix tree, under a key that says how it was computed.

A key of the tree is a list of 64-bit integers. The lower half of each is a token id; the upper half is 0 where a token
was computed causally and else a digest of its place in the layout: how far its position is off its index, and which
earlier tokens it does not see. So a follow-up turn of a conversation finds the blocks of the turn before it, and a
request whose tokens mean something else never does.
"""

from __future__ import annotations

import bisect
import hashlib
from array import array
from collections.abc import Sequence
from typing import Any

from sglang.srt.mem_cache.base_prefix_cache import InsertParams
from sglang.srt.mem_cache.common import match_kv_cache
from sglang.srt.mem_cache.radix_cache import RadixKey

from multiverse.controller import Controller
from multiverse.document import to_transcript
from multiverse.layout import Layout, layout
from multiverse.replay import parts, starts
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


def sequence_key(tree: RequestTree, length: int) -> array[int]:
    """The key of the first `length` tokens of a request, as they were computed."""
    controller = tree.controller
    transcript = to_transcript(controller)
    laid = layout(transcript, controller.separators, controller.binding.dialect.join)
    return layout_key(transcript.ids[:length], laid)


def _usable(controller: Controller, length: int) -> int:
    """How many of the first `length` tokens of the prompt are of use: those before a block that begins among them and
    does not end there, if there is such a block."""
    strand = controller.prompt.strand
    seams = starts(strand)
    part = bisect.bisect(seams, length) - 1
    return min(length, seams[part] + len(parts(controller, strand)[part].tokens))


def _digest(text: str) -> int:
    """31 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1 or 1


class LayoutCache:
    """The radix tree for sequences that hold blocks."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def insert(self, tree: RequestTree, held: Held) -> None:
        """Enter a finished root's sequence; the tree then owns all of its slots."""
        client, length = tree.client, len(held.slots)
        if length > held.own and self._cache.supports_prefix_sharing():
            self._cache.insert(
                InsertParams(
                    key=RadixKey(sequence_key(tree, length), client.extra_key, cache_salt=client.cache_salt),
                    value=held.slots,
                    prev_prefix_len=held.own,
                    inserted_len=held.own,
                    priority=client.priority or 0,
                )
            )
            held.own = length

    def find(self, tree: RequestTree) -> Held | None:
        """What the radix tree has of a prompt, locked; of a program's branch, what it has in common with its source."""
        prompt, client, program = tree.controller.prompt, tree.client, tree.program
        most = len(prompt.ids)
        if program is None:
            most -= 1
        elif program.shared is not None:
            most = program.shared
        key = layout_key(prompt.ids, prompt.layout)
        match_kv_cache(client, self._cache, key, max_prefix_len=most)
        usable = _usable(tree.controller, client.prefix_len)
        if usable == 0:
            return None
        if usable < client.prefix_len:
            match_kv_cache(client, self._cache, key, max_prefix_len=usable)  # so that no more than that is locked
        lock = self._cache.lock(client.last_node)
        slots = self._cache.prefix_device_indices(client).clone()
        return Held(slots, len(slots), lock)
