"""SGLang's waiting queue, in which the runs of trees wait beside the requests of clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from multiverse.serving.pressure import seniority
from multiverse_sglang.scheduler.tree import RequestTree, member_of

PLAIN = (1 << 62, 0.0)
"""Seniority of requests that can't have blocks: they come last."""


def tree_of(request: Any) -> RequestTree | None:
    """The tree that `request` computes a strand of, if any."""
    member = member_of(request)
    return member.tree if member is not None and member.tree.open else None


def seniority_of(request: Any) -> tuple[int, float]:
    """That of what `request` belongs to; `PLAIN` if it can't have blocks."""
    member = member_of(request)
    return PLAIN if member is None else seniority(member.tree)


def by_seniority(requests: Sequence[Any], order: list[int]) -> list[int]:
    """Whom SGLang shall keep first when it retracts: the most senior; its own order if no tree is among them."""
    if all(tree_of(request) is None for request in requests):
        return order
    return sorted(order, key=lambda index: seniority_of(requests[index]))


class WaitingQueue:
    """What SGLang is shown of the queue of `scheduler`, and in which order."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    @property
    def requests(self) -> list[Any]:
        """All that wait, in order."""
        found: list[Any] = self._scheduler.waiting_queue
        return found

    def remove(self, request: Any) -> None:
        """Take `request` out, if it is there."""
        self._scheduler.waiting_queue = [waiting for waiting in self.requests if waiting is not request]

    def put_strands_first(self) -> None:
        """Strands hold slots: they go before requests that hold none, those of more senior trees first."""

        def place(request: Any) -> tuple[bool, tuple[int, float]]:
            tree = tree_of(request)
            return (True, PLAIN) if tree is None else (False, seniority(tree))

        self._scheduler.waiting_queue.sort(key=place)

    @contextmanager
    def without(self, hidden: Sequence[Any]) -> Iterator[None]:
        """SGLang does not see `hidden`, which are put back behind what it left and was given meanwhile."""
        known = set(map(id, hidden))
        self._scheduler.waiting_queue = [request for request in self.requests if id(request) not in known]
        try:
            yield
        finally:
            self._scheduler.waiting_queue = [*self.requests, *hidden]

    def as_clients_see_it(self, evicted: Callable[[RequestTree], None]) -> AbstractContextManager[None]:
        """SGLang sees requests of clients only, to count them and to choose whom to turn away.

        A tree that nothing was computed for yet is such a request. What has begun waits for a place in the batch, not
        to be admitted: it neither counts nor can it be turned away.

        Args:
            evicted: told of a tree that SGLang took out. Its client has been answered.
        """
        return self._showing([(request, _client_of(request)) for request in self.requests], evicted)

    @contextmanager
    def _showing(self, shown: list[tuple[Any, Any]], evicted: Callable[[RequestTree], None]) -> Iterator[None]:
        self._scheduler.waiting_queue = [client for _, client in shown if client is not None]
        try:
            yield
        finally:
            left = set(map(id, self.requests))
            gone = [request for request, client in shown if client is not None and id(client) not in left]
            self._scheduler.waiting_queue = [request for request, _ in shown if request not in gone]
            for tree in filter(None, map(tree_of, gone)):
                evicted(tree)


def _client_of(request: Any) -> Any:
    """The request of a client that waits as `request`, if one does."""
    tree = tree_of(request)
    if tree is None:
        return request
    return None if tree.has_begun else tree.client
