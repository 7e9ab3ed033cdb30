"""KV of blocks in the radix tree, under a key that says how it was computed.

A key of the tree is a list of 64-bit integers, one per token in the order of KV: the token's id where it was computed
causally, and else a negative number made of the id and a digest of its place: how far its position is off its index,
and the branch it lies in. So a follow-up turn of a conversation finds the blocks of the turn before it, and a request
whose tokens mean something else never does. The digest is keyed with a secret of this process, so that nobody can look
for two places with one digest. With pages of more than one token the tree knows whole pages only.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import secrets
from array import array
from collections.abc import Iterable

from sglang.srt.mem_cache.base_prefix_cache import InsertParams
from sglang.srt.mem_cache.common import match_kv_cache
from sglang.srt.mem_cache.radix_cache import RadixKey

from multiverse.decoding.controller import Controller
from multiverse.decoding.document import to_transcript
from multiverse.decoding.replay import part_offsets, parts
from multiverse.decoding.splice import Entry, Path, kv_order
from multiverse.serving.resume import resume_point
from multiverse_sglang.host import RadixCache
from multiverse_sglang.scheduler.kv_slots import KVSlots
from multiverse_sglang.scheduler.tree import RequestTree

_SECRET = secrets.token_bytes(32)


def layout_key(entries: Iterable[Entry]) -> array[int]:
    """The key of tokens in the order of their KV: one integer per token."""
    marked = ((token, _mark(position - index, path)) for index, (token, position, path) in enumerate(entries))
    return array("q", (token if mark is None else ~(mark ^ token) for token, mark in marked))


@functools.lru_cache(4096)
def _mark(shift: int, path: Path) -> int | None:
    """A digest of 63 bits; `None` if the token was computed causally."""
    if not shift and not path:
        return None
    digest = hashlib.blake2b(repr((shift, path)).encode(), digest_size=8, key=_SECRET).digest()
    return int.from_bytes(digest, "big") >> 1


def sequence_key(controller: Controller, page_size: int = 1) -> array[int]:
    """The key of all that a request has so far, its prompt included, as it is or will be computed.

    Args:
        page_size: tokens of a page.
    """
    if controller.binding.dialect.join == "splice":
        return layout_key(kv_order(controller, controller.root, page_size).entries)
    return array("q", to_transcript(controller).ids)


def _usable_length(controller: Controller, length: int) -> int:
    """How many of the first `length` tokens of the prompt are of use: those before a block that begins among them and
    does not end there, if there is such a block."""
    strand = controller.prompt.strand
    offsets = part_offsets(strand)
    part = bisect.bisect(offsets, length) - 1
    return min(length, offsets[part] + len(parts(controller, strand)[part].tokens))


class LayoutCache:
    """The radix tree for sequences that hold blocks.

    Args:
        cache: SGLang's.
        page_size: tokens of a page.
    """

    def __init__(self, cache: RadixCache, page_size: int) -> None:
        self._cache, self._page_size = cache, page_size

    def insert(self, tree: RequestTree, slots: KVSlots) -> None:
        """Enter a finished root's sequence. The radix tree then owns all of its full pages, and `slots` the rest."""
        client = tree.client
        key = sequence_key(tree.controller, self._page_size)
        length = slots.length // self._page_size * self._page_size
        if length > slots.owned_from and self._cache.supports_prefix_sharing():
            self._cache.insert(
                InsertParams(
                    key=RadixKey(key[:length], client.extra_key, cache_salt=client.cache_salt),
                    value=slots.indices[:length],
                    prev_prefix_len=slots.owned_from,
                    inserted_len=slots.owned_from,
                    priority=client.priority or 0,
                )
            )
            slots.owned_from = length

    def suffices(self, tree: RequestTree, slots: KVSlots) -> bool:
        """Whether the radix tree can hold all blocks of a root's sequence for whoever goes on behind it.

        With pages of more than one token it can't if the last block ends in a page that is not full.
        """
        last, _ = kv_order(tree.controller, tree.controller.root, self._page_size).spans[-1]
        return slots.length // self._page_size * self._page_size >= last

    def find(self, tree: RequestTree) -> KVSlots | None:
        """What the radix tree has of a prompt: locked, owned by the radix tree, and up to where a root can go on.

        Of a program's branch, no more than what it has in common with its source.
        """
        controller, client, program = tree.controller, tree.client, tree.program
        order, max_length = kv_order(controller, controller.root, self._page_size), len(controller.prompt.ids)
        if program is None:
            max_length -= 1
        elif program.shared is not None:
            max_length = program.shared
        if tree.scores is not None:
            max_length = min(max_length, tree.scores.first)
        key = layout_key(order.entries)
        match_kv_cache(client, self._cache, key, max_prefix_len=max_length)
        length = client.prefix_len
        if self._page_size > 1:
            length = resume_point(order.spans, length, self._page_size, whole=False).length
        if program is not None and (usable := _usable_length(controller, length)) < length:
            length = usable
            match_kv_cache(client, self._cache, key, max_prefix_len=length)  # so that no more than that is locked
        if length == 0:
            return None
        lock = self._cache.lock(client.last_node)
        return KVSlots(self._cache.prefix_device_indices(client)[:length].clone(), length, lock)
