"""I7: what raises while one request is handled ends that request, and nothing else.

What is done about one tree is done under its guard; what is about a batch, or about all trees, here. A tree that fails
is ended with an error as soon as SGLang's own loop has been left, and gives back all that it has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TypeVar

from sglang.srt.managers.schedule_batch import FINISH_ABORT

from multiverse.serving.containment import Guard
from multiverse_sglang.channels import MEMBER
from multiverse_sglang.host import Request, Scheduler
from multiverse_sglang.scheduler.runs import Runs
from multiverse_sglang.scheduler.tree import RequestTree
from multiverse_sglang.scheduler.trees import Trees
from multiverse_sglang.scheduler.waiting_queue import tree_of

Result = TypeVar("Result")
INTERNAL_ERROR = "The request ended with an internal error of multiverse; the server's log has it."
logger = logging.getLogger("sglang.multiverse")


class Containment:
    """Ends what fails.

    Attributes:
        guard: for what is done about one tree.
    """

    def __init__(self, scheduler: Scheduler, trees: Trees, runs: Runs) -> None:
        self._scheduler, self._trees, self._runs = scheduler, trees, runs
        self.guard: Guard[RequestTree] = Guard(trees.failing.append, lambda tree: tree.client.rid, logger)

    def contain(self, handler: Callable[..., Result], *args: object, otherwise: Result) -> Result:
        """What `handler(*args)`, which is about trees, but not one of them, returns; if it raises, all of them end."""
        try:
            return handler(*args)
        except Exception as error:
            logger.error("multiverse: every request with blocks ends: %r", error, exc_info=error)
            self._fail(self._trees, error)
            self.end_failing()
            return otherwise

    def contain_batch(self, requests: Sequence[Request], handler: Callable[..., None], *args: object) -> None:
        """Call `handler(*args)`, which is about a batch of `requests`; if it raises, those that are strands fail."""
        try:
            handler(*args)
        except Exception as error:
            self.fail_batch(requests, error)

    def fail_batch(self, requests: Sequence[Request], error: Exception) -> None:
        """What was done for `requests` raised `error`: their trees end as soon as SGLang's own loop has been left."""
        self._fail(map(tree_of, requests), error)

    def _fail(self, trees: Iterable[RequestTree | None], error: Exception) -> None:
        for tree in dict.fromkeys(trees):
            if tree is not None and not tree.ended:
                self.guard.caught(tree, error)

    def end_failing(self) -> None:
        """End the trees whose handling raised. Not to be called from within SGLang's loops over a batch."""
        if not self._trees.failing:
            return
        failing, self._trees.failing[:] = list(dict.fromkeys(self._trees.failing)), []
        for tree in failing:
            self.guard.aside(self._end, tree, otherwise=None)

    def _end(self, tree: RequestTree) -> None:
        client, reason = tree.client, FINISH_ABORT(INTERNAL_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR)
        if not tree.is_forked:  # SGLang computes it as any other request, and ends it so with its next token
            setattr(client, MEMBER, None)
            client.to_finish = reason
        elif not tree.ended:
            tree.ended = True
            self.guard.aside(tree.abort, otherwise=None)
            self.release(tree)
            client.finished_reason = reason
            self._scheduler.output_streamer.stream_output([client], client.return_logprob)

    def release(self, tree: RequestTree) -> None:
        """Give back all that a tree has, and forget it. Its client is answered elsewhere."""
        for member in reversed(list(tree.members.values())):
            self.guard.aside(self._runs.release, member, otherwise=0)
        tree.members.clear()
        self._trees.remove(tree)
