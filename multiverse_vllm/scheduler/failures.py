"""What ends a request with an error: something raised while it was handled, or it needs more memory than there is."""

from __future__ import annotations

from vllm.v1.engine import EngineCoreOutput
from vllm.v1.request import RequestStatus

from multiverse_vllm.scheduler.answers import Answers, Results, send
from multiverse_vllm.scheduler.host import Request
from multiverse_vllm.scheduler.state import State


class Failures:
    """Lets a request fail without harm to any other (invariant I7).

    A request fails by its root, the vLLM request that the client knows (`Trees.fail`). vLLM may be in the middle of a
    loop over its requests then, so the tree is ended as soon as that loop is left, and the client is told with the next
    outputs.

    Attributes:
        unreported: roots that ended with an error which their clients have not been told.
    """

    def __init__(self, state: State, answers: Answers) -> None:
        self._host, self._trees, self._queue, self._table = state.host, state.trees, state.queue, state.table
        self._answers = answers
        self.unreported: list[Request] = []

    def end_failed(self) -> None:
        """End what failed, and take back all that it held."""
        while self._trees.failed:
            _, root = self._trees.failed.popitem()
            self._trees.guard.aside(self._release, root, otherwise=None)
            self.unreported.append(root)

    def _release(self, root: Request) -> None:
        """Free the requests of a tree, whatever state it is in. Nobody is to find in the cache what it computed."""
        member = self._trees.members.get(root.request_id)
        if member is None:
            self._queue.finish([root.request_id], RequestStatus.FINISHED_ERROR)
            return
        tree, running = member.tree, self._queue.running()
        tree.controller.abort()
        self._table.evict(tree.ids())
        for request in (self._host.requests[name] for name in tree.ids() if name in self._host.requests):
            if request.is_finished():  # vLLM was not told yet, and would take it for freed
                request.status = RequestStatus.RUNNING if request in running else RequestStatus.WAITING
        self._answers.end(tree, RequestStatus.FINISHED_ERROR)

    def report(self, results: Results) -> None:
        """Answer those that failed with an error, and with nothing else that this step may have had for them."""
        unreported, self.unreported = self.unreported, []
        reason = RequestStatus.get_finished_reason(RequestStatus.FINISHED_ERROR)
        for root in unreported:
            if root.client_index in results:
                batch = results[root.client_index]
                batch.outputs = [output for output in batch.outputs if output.request_id != root.request_id]
            send(EngineCoreOutput(root.request_id, [], finish_reason=reason), root, results)
