"""SGLang's waiting queue, in which the runs of trees wait beside the requests of clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from multiverse.serving.pressure import seniority
from multiverse_sglang.host import Request, Scheduler
from multiverse_sglang.scheduler.deferral import deferred_of
from multiverse_sglang.scheduler.tree import RequestTree, member_of

PLAIN = (1 << 62, 0.0)
"""Seniority of requests that can't have blocks: they come last."""
_Shown = tuple[Request, Request | None]
"""What waits, and as which request of a client SGLang sees it, if it does."""


def tree_of(request: Request) -> RequestTree | None:
    """The tree that `request` computes a strand of, if any."""
    member = member_of(request)
    return member.tree if member is not None and member.tree.is_forked else None


def seniority_of(request: Request) -> tuple[int, float]:
    """That of what `request` belongs to; `PLAIN` if it can't have blocks."""
    member = member_of(request)
    ranked = deferred_of(request) if member is None else member.tree
    return PLAIN if ranked is None else seniority(ranked)


def by_seniority(requests: Sequence[Request], order: list[int]) -> list[int]:
    """Whom SGLang shall keep first when it retracts: the most senior; its own order if no tree is among them."""
    if all(tree_of(request) is None for request in requests):
        return order
    return sorted(order, key=lambda index: seniority_of(requests[index]))


class WaitingQueue:
    """The only one that touches the queue of `scheduler`: who waits, and what SGLang is shown of it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    @property
    def requests(self) -> list[Request]:
        """All that wait, in order."""
        return self._scheduler.waiting_queue

    def enqueue(self, run: Request) -> None:
        """Let a run wait behind all others."""
        self.requests.append(run)

    def remove(self, request: Request) -> bool:
        """Take `request` out, and say whether it was there."""
        for place, waiting in enumerate(self.requests):
            if waiting is request:
                del self.requests[place]
                return True
        return False

    def put_strands_first(self) -> None:
        """Strands hold slots: they go before requests that hold none, those of more senior trees first."""

        def place(request: Request) -> tuple[bool, tuple[int, float]]:
            tree = tree_of(request)
            return (True, PLAIN) if tree is None else (False, seniority(tree))

        self._scheduler.waiting_queue.sort(key=place)

    @contextmanager
    def without(self, hidden: Sequence[Request]) -> Iterator[None]:
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
    def _showing(self, shown: list[_Shown], evicted: Callable[[RequestTree], None]) -> Iterator[None]:
        self._scheduler.waiting_queue = [client for _, client in shown if client is not None]
        try:
            yield
        finally:
            left = set(map(id, self.requests))
            gone = [request for request, client in shown if client is not None and id(client) not in left]
            self._scheduler.waiting_queue = [request for request, _ in shown if request not in gone]
            for tree in filter(None, map(tree_of, gone)):
                evicted(tree)


def _client_of(request: Request) -> Request | None:
    """The request of a client that waits as `request`, if one does."""
    tree = tree_of(request)
    if tree is None:
        return request
    return None if tree.has_begun else tree.client
