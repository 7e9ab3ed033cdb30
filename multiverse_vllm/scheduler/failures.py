"""What ends a request with an error: something raised while it was handled, or it needs more memory than there is."""

from __future__ import annotations

from typing import Any

from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

from multiverse.serving.containment import Guard
from multiverse_vllm.scheduler.tree import RequestTree


class Failures:
    """The part of the scheduler that lets a request fail without harm to any other (invariant I7).

    A request fails by its root, the vLLM request that the client knows. vLLM may be in the middle of a loop over its
    requests then, so the tree is ended as soon as that loop is left, and the client is told with the next outputs.
    """

    _guard: Guard[Request]
    _failed: dict[str, Request]
    _untold: list[Request]

    def _fail(self, root: Request) -> None:
        """Have the tree of `root` ended with an error. Until then, nothing more is done about it."""
        self._failed[root.request_id] = root

    def _end_failed(self) -> None:
        """End what failed, and take back all that it held."""
        while self._failed:
            _, root = self._failed.popitem()
            self._guard.aside(self._release, root, otherwise=None)
            self._untold.append(root)

    def _release(self, root: Request) -> None:
        """Free the requests of a tree, whatever state it is in. Nobody is to find in the cache what it computed."""
        member = self._members.get(root.request_id)
        if member is None:
            super().finish_requests([root.request_id], RequestStatus.FINISHED_ERROR)
            return
        tree: RequestTree = member.tree
        tree.controller.abort()
        self._table.evict(tree.ids())
        for request in (self.requests[name] for name in tree.ids() if name in self.requests):
            if request.is_finished():  # vLLM was not told yet, and would take it for freed
                request.status = RequestStatus.RUNNING if request in self.running else RequestStatus.WAITING
        self._dissolve(tree, RequestStatus.FINISHED_ERROR)

    def _tell_failed(self, results: dict[int, EngineCoreOutputs]) -> None:
        """Answer those that failed with an error, and with nothing else that this step may have had for them."""
        untold, self._untold = self._untold, []
        reason = RequestStatus.get_finished_reason(RequestStatus.FINISHED_ERROR)
        for root in untold:
            if root.client_index in results:
                batch = results[root.client_index]
                batch.outputs = [output for output in batch.outputs if output.request_id != root.request_id]
            self._send(EngineCoreOutput(root.request_id, [], finish_reason=reason), root, results)

    @staticmethod
    def _send(output: EngineCoreOutput, root: Request, results: dict[int, EngineCoreOutputs]) -> None:
        batch: Any = results.setdefault(root.client_index, EngineCoreOutputs())
        batch.outputs = [*batch.outputs, output]
