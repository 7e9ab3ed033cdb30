"""Requests that nothing is done for as long as they sample no tag: most of them, and most tokens.

vLLM serves them by itself. Each step its sampled tokens are looked at once, all together. Whoever is about to get a tag
is enrolled before vLLM hands it out, and is then as if it had been a tree from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from vllm.v1.outputs import ModelRunnerOutput

from multiverse.decoding.late import deciding_tokens
from multiverse.structure.binding import Binding
from multiverse_vllm.scheduler.admission import Admission
from multiverse_vllm.scheduler.answers import Answers, Results
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.stops import ending
from multiverse_vllm.scheduler.trees import Deferred


class Deferral:
    """Enrols deferred requests, and answers those that end without."""

    def __init__(self, state: State, admission: Admission, answers: Answers, binding: Binding) -> None:
        self._host, self._trees, self._admission, self._answers = state.host, state.trees, admission, answers
        self._deciding = deciding_tokens(binding)

    def watch(self, found: ModelRunnerOutput) -> list[str]:
        """Before vLLM looks at a step's results: enrol the requests that get their first tag with it.

        Returns:
            all requests that get a deciding token.
        """
        sampled, deferred = found.sampled_token_ids, self._trees.deferred
        if not (deferred or self._trees.members) or self._deciding.isdisjoint(chain.from_iterable(sampled)):
            return []
        names = [name for name, row in found.req_id_to_index.items() if not self._deciding.isdisjoint(sampled[row])]
        for name in names:
            if name in deferred:
                self.enroll_now(name)
        return names

    def enroll_now(self, name: str) -> None:
        """Make a tree of one; if that fails, it ends with an error."""
        deferred = self._trees.deferred.pop(name)
        self._trees.guard.run(deferred.request, self._admission.enroll_late, deferred, otherwise=None)

    def enroll_all(self) -> None:
        """Something is about to happen that trees take note of, such as other weights."""
        for name in list(self._trees.deferred):
            self.enroll_now(name)

    def settle(self, results: Results) -> None:
        """A step is over: forget those that ended with it, with a record in the answer of whoever wants one."""
        if not self._trees.deferred.keys().isdisjoint(self._host.finished_req_ids):
            for name in self._trees.deferred.keys() & self._host.finished_req_ids:
                deferred = self._trees.deferred[name]
                if not deferred.request.is_finished():
                    continue  # an earlier one had the same id
                del self._trees.deferred[name]
                if deferred.asked:
                    self._trees.guard.run(deferred.request, self._record, deferred, results, otherwise=None)

    def _record(self, deferred: Deferred, results: Results) -> None:
        *said, last = deferred.request._output_token_ids
        root = self._admission.make_late(deferred, said)
        root.tree.judge.decide(root.strand, last, ending(deferred.request))
        self._answers.add_record(root, results)

    def abort(self, request_ids: Iterable[str], by_operator: bool) -> None:
        """Before vLLM ends these requests: forget them, but for those whose last output is to have a record."""
        for name in request_ids:
            deferred = self._trees.deferred.get(name)
            if deferred is not None and deferred.asked and by_operator:
                self.enroll_now(name)
            else:
                self._trees.deferred.pop(name, None)
