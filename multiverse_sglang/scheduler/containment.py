"""I7: what raises while one request is handled ends that request, and nothing else.

What is done about one tree is done under its guard; what is about a batch, or about all trees, here. A tree that fails
is ended with an error as soon as SGLang's own loop has been left, and gives back all that it holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from sglang.srt.managers.schedule_batch import FINISH_ABORT

from multiverse_sglang.channels import MEMBER
from multiverse_sglang.scheduler.admission import INTERNAL_ERROR, Admission
from multiverse_sglang.scheduler.tree import RequestTree
from multiverse_sglang.scheduler.waiting_queue import tree_of

Result = TypeVar("Result")
logger = logging.getLogger("sglang.multiverse")


class Containment(Admission):
    """The part of the conductor that ends what fails.

    Attributes:
        failing: the trees that are to be ended.
    """

    failing: list[RequestTree]

    def contain(self, handler: Callable[..., Result], *args: Any, otherwise: Result) -> Result:
        """What `handler(*args)`, which is about trees, but not one of them, returns; if it raises, all of them end."""
        try:
            return handler(*args)
        except Exception as error:
            logger.error("multiverse: every request with blocks ends: %r", error, exc_info=error)
            self.fail(self.trees.values(), error)
            self.end_failing()
            return otherwise

    def fail(self, trees: Iterable[RequestTree | None], error: Exception) -> None:
        """What was done for `trees` raised `error`: they end as soon as SGLang's own loop has been left."""
        for tree in dict.fromkeys(trees):
            if tree is not None and not tree.ended:
                self.guard.caught(tree, error)

    def contain_batch(self, requests: Sequence[Any], handler: Callable[..., None], *args: Any) -> None:
        """Call `handler(*args)`, which is about a batch of `requests`; if it raises, those that are strands fail."""
        try:
            handler(*args)
        except Exception as error:
            self.fail_batch(requests, error)

    def fail_batch(self, requests: Sequence[Any], error: Exception) -> None:
        """What was done for `requests` raised `error`."""
        self.fail(map(tree_of, requests), error)

    def forget(self, tree: RequestTree) -> None:
        """Give back all that a tree holds. Its client is answered elsewhere."""
        for member in reversed(list(tree.members.values())):
            self.guard.aside(self.runs.release, member, otherwise=0)
        tree.members.clear()
        self.trees.pop(tree.client.rid, None)
        for trees in (self.exiles, self.retracted):
            trees[:] = [other for other in trees if other is not tree]

    def end_failing(self) -> None:
        """End the trees whose handling raised. Not to be called from within SGLang's loops over a batch."""
        failing, self.failing[:] = list(dict.fromkeys(self.failing)), []
        for tree in failing:
            self.guard.aside(self._end_failed, tree, otherwise=None)

    def _end_failed(self, tree: RequestTree) -> None:
        client, reason = tree.client, FINISH_ABORT(INTERNAL_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR)
        if not tree.open:  # SGLang computes it as any other request, and ends it so with its next token
            setattr(client, MEMBER, None)
            client.to_finish = reason
        elif not tree.ended:
            tree.ended = True
            self.guard.aside(tree.abort, otherwise=None)
            self.forget(tree)
            client.finished_reason = reason
            self.scheduler.output_streamer.stream_output([client], client.return_logprob)
