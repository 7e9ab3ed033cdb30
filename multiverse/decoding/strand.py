"""A strand: a sequence that decodes by itself, the root of a request or one of its branches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import IntEnum

from multiverse.decoding.budgets import UNBOUNDED, FinishReason
from multiverse.structure.grammar import Frame
from multiverse.structure.reasons import Reason


class Status(IntEnum):
    """Where a strand is in its life."""

    WAITING = 0
    RUNNING = 1
    PARKED = 2
    CLOSED = 3


class Strand:
    """One sequence of tokens with its place in the tree.

    Only the controller of its request writes to it. Hosts look at it: whether it runs, what it has forked into, and how
    many of its tokens they have yet to compute.

    Attributes:
        key: `()` for the root, then one `(block, branch)` pair of ordinals per level. Deterministic, so that every
            rank of a tensor-parallel host derives the same child ids and seeds from it.
        label: the branch's label; empty for the root.
        parent: the strand it was forked from.
        frame: state of the grammar after its last token.
        header: path-open and header, the first of its tokens; empty for the root.
        tokens: its own tokens, injected ones included. The root's begin after the prompt.
        injected: spans `(start, end)` of `tokens` that the engine wrote, in order; all others were sampled.
        held: how many of the last of them may yet be taken back, as a stop string may have begun.
        outlines: the current goal's outlines: labels, or the offset in `tokens` at which one has yet to be read.
        forks: `(offset, children)` for each block that was forked; the children come after `tokens[:offset]`.
        fallbacks: why the goal closed by `tokens[offset]` was not forked, by offset.
        close: offset of path-close in `tokens`, once there.
        position: position of its next token.
        position_end: the first position it must not use.
        join_position: where, as far as this branch is concerned, its parent may go on.
        shift: how far positions run ahead of the critical path; 0 unless the dialect's join is `prefill`.
        deltas: `position_delta` at its start and after each join, for whoever has to compute it again.
        kv_length: tokens in its KV sequence once everything it was given is computed.
        open_children: children that are not closed yet.
    """

    __slots__ = (
        "close",
        "deltas",
        "fallbacks",
        "finish_reason",
        "forks",
        "frame",
        "header",
        "held",
        "injected",
        "join_position",
        "key",
        "kv_length",
        "label",
        "open_children",
        "outlines",
        "parent",
        "position",
        "position_end",
        "shift",
        "status",
        "tokens",
    )

    def __init__(self, key: tuple[int, ...], label: str, parent: Strand | None, frame: Frame) -> None:
        self.key = key
        self.label = label
        self.parent = parent
        self.frame = frame
        self.header: tuple[int, ...] = ()
        self.tokens: list[int] = []
        self.injected: list[tuple[int, int]] = []
        self.held = 0
        self.outlines: list[str | int] = []
        self.forks: list[tuple[int, tuple[Strand, ...]]] = []
        self.fallbacks: dict[int, Reason] = {}
        self.close: int | None = None
        self.deltas: list[int] = []
        self.position = 0
        self.position_end = UNBOUNDED
        self.join_position = 0
        self.shift = 0
        self.kv_length = 0
        self.open_children = 0
        self.status = Status.WAITING
        self.finish_reason: FinishReason | None = None

    @property
    def position_delta(self) -> int:
        """`position - kv_length`: what turns an index in the KV sequence into a position. Never positive."""
        return self.position - self.kv_length

    def position_at(self, offset: int) -> int:
        """Position of its token at `offset`, which comes behind all its forks."""
        return self.position - (len(self.tokens) - offset)

    @property
    def settled(self) -> int:
        """How many of its tokens are there to stay."""
        return len(self.tokens) - self.held

    def write(self, tokens: tuple[int, ...]) -> None:
        """Append `tokens` at consecutive positions."""
        self.tokens.extend(tokens)
        self.held = 0
        self.position += len(tokens)
        self.kv_length += len(tokens)

    def inject(self, tokens: tuple[int, ...]) -> None:
        """Append `tokens` that were not sampled."""
        if tokens:
            self.injected.append((len(self.tokens), len(self.tokens) + len(tokens)))
        self.write(tokens)

    def cut(self, offset: int) -> int:
        """Take back its tokens from `offset` on, which were sampled since it last forked; returns how many."""
        taken = len(self.tokens) - offset
        del self.tokens[offset:]
        self.position -= taken
        self.kv_length -= taken
        self.fallbacks = {at: reason for at, reason in self.fallbacks.items() if at < offset}
        return taken

    def walk(self) -> Iterator[Strand]:
        """This strand and all below it, parents first, siblings in order."""
        yield self
        for _, children in self.forks:
            for child in children:
                yield from child.walk()

    def spans(self) -> Iterator[tuple[Strand, int, int]]:
        """This strand and all below it as `(strand, start, end)` spans of their tokens, in document order."""
        at = 0
        for offset, children in self.forks:
            yield self, at, offset
            for child in children:
                yield from child.spans()
            at = offset
        yield self, at, len(self.tokens)

    def __repr__(self) -> str:
        return f"Strand({self.key}, {self.label!r}, {self.status.name.lower()}, {len(self.tokens)} tokens)"


def derive_seed(seed: int, key: tuple[int, ...]) -> int:
    """The sampling seed of the strand `key` of a request with `seed`: 63 bits, the same on every host and rank."""
    if not key:
        return seed
    text = f"{seed}:{'.'.join(map(str, key))}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
