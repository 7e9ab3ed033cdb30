"""What a client sees of a tree: one answer in document order, one end, and a record of how it was decoded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

from multiverse.decoding.actions import Action
from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.stream import tokens_of
from multiverse.wire.responses import FIELD
from multiverse_vllm.frontend.inputs import EVENTS, RECORD, VERSIONS
from multiverse_vllm.scheduler.blocks import Move
from multiverse_vllm.scheduler.integrity import remains
from multiverse_vllm.scheduler.logprobs import document_logprobs, record_row
from multiverse_vllm.scheduler.prompt_logprobs import Scoring, prompt_tensors, record_scores
from multiverse_vllm.scheduler.tree import RequestTree

logger = logging.getLogger("vllm.multiverse")

STATUS = {
    FinishReason.LENGTH: RequestStatus.FINISHED_LENGTH_CAPPED,
    FinishReason.STOP: RequestStatus.FINISHED_STOPPED,
    FinishReason.ABORT: RequestStatus.FINISHED_ABORTED,
}


class Client:
    """The part of the scheduler that answers."""

    _moves: list[Move]
    _finished: list[RequestTree]
    _telling: dict[int, RequestTree]
    last_outputs: dict[str, EngineCoreOutput]

    def _take_scores(self, wanted: dict[str, Scoring], found: dict[str, Any]) -> None:
        """Move what the workers scored from `found`, vLLM's own prompt logprobs by request, to the trees."""
        for request, asked in wanted.items():
            tensors, root = found.pop(request, None), self._members.get(asked.root)
            if root is not None:
                self._guard.run(root.request, record_scores, root.tree, asked, tensors, otherwise=None)

    def _collect(self, results: dict[int, EngineCoreOutputs]) -> dict[str, EngineCoreOutput]:
        """Keep the logprobs of a step and take out what vLLM reported of forked trees; roots' outputs are returned.

        First of all that follows a step, as it may have sampled tokens of trees that are about to be replayed.
        """
        own: dict[str, EngineCoreOutput] = {}
        for batch in results.values():
            for output in batch.outputs:
                if output.new_logprobs is not None and output.request_id in self._members:
                    member = self._members[output.request_id]
                    self._guard.run(member.tree.root.request, record_row, member, output, otherwise=None)
            if self._structured:
                batch.outputs = [output for output in batch.outputs if not self._take(output, own)]
        return own

    def _answer(self, own: dict[str, EngineCoreOutput], results: dict[int, EngineCoreOutputs]) -> None:
        """Answer forked trees, one output each, in document order."""
        finished, self._finished = self._finished, []
        telling, self._telling = self._telling, {}
        for tree in {id(tree): tree for tree in [*self._structured.values(), *telling.values(), *finished]}.values():
            if tree.root.request.request_id not in self._failed:
                self._guard.run(tree.root.request, self._answer_tree, tree, own, results, otherwise=None)

    def _take(self, output: EngineCoreOutput, own: dict[str, EngineCoreOutput]) -> bool:
        """Whether `output` is of a strand of a forked tree; a root's goes into `own`."""
        member = self._members.get(output.request_id)
        if member is None or not member.tree.controller.root.forks:
            return False
        if member.strand.parent is None:
            own[output.request_id] = output
        return True

    def _answer_tree(
        self, tree: RequestTree, own: dict[str, EngineCoreOutput], results: dict[int, EngineCoreOutputs]
    ) -> None:
        root, finish = tree.root.request, tree.controller.finish_reason
        if tree.scores is not None and not tree.scores.complete and finish is None:
            return  # clients expect scores of the prompt in the first output
        if tree.controller.root.forks:
            spans = tree.stream.drain_spans()
            if spans or finish or tree.events:
                output = own.get(root.request_id) or EngineCoreOutput(root.request_id, [])
                output.new_token_ids = tokens_of(spans)
                output.new_logprobs = document_logprobs(tree, spans)
                if output.finish_reason is None and finish is not None:
                    output.finish_reason = RequestStatus.get_finished_reason(STATUS[finish])
                self._send(output, root, results)
        if tree.scores is not None and tree.scores.complete and (first := self._output(root, results)):
            first.new_prompt_logprobs_tensors, tree.scores = prompt_tensors(tree), None
        self._add_events(tree, results)
        if finish is not None:
            self._add_record(tree, results)
            self._dissolve(tree, STATUS[finish])

    @staticmethod
    def _output(root: Request, results: dict[int, EngineCoreOutputs]) -> EngineCoreOutput | None:
        """What `root` puts out in this step, if anything."""
        outputs = results[root.client_index].outputs if root.client_index in results else ()
        return next((output for output in outputs if output.request_id == root.request_id), None)

    def _attach(self, name: str, value: Any, root: Request, results: dict[int, EngineCoreOutputs]) -> bool:
        """Give `value` to the front end together with what `root` puts out in this step, if it does."""
        output = self._output(root, results)
        if output is not None:
            output.kv_transfer_params = {**(output.kv_transfer_params or {}), name: value}
        return output is not None

    def _add_events(self, tree: RequestTree, results: dict[int, EngineCoreOutputs]) -> None:
        """Put what happened into the root's output of this step; if there is none, into its next one."""
        events = [astuple(event) for event in tree.events]
        if events and self._attach(EVENTS, events, tree.root.request, results):
            tree.events = []

    def _prepare_last_output(self, tree: RequestTree, actions: Sequence[Action]) -> None:
        """Keep what is left to be told of an answer that an operator aborts (`multiverse_vllm.scheduler.aborts`)."""
        root, results = tree.root.request, dict[int, EngineCoreOutputs]()
        tree.events += tree.events_of(tree.controller.root, actions)
        spans = tree.stream.drain_spans() if tree.controller.root.forks else []
        output = EngineCoreOutput(root.request_id, tokens_of(spans), new_logprobs=document_logprobs(tree, spans))
        self._send(output, root, results)
        self._add_events(tree, results)
        self._add_record(tree, results)
        self.last_outputs[root.request_id] = output

    def _add_record(self, tree: RequestTree, results: dict[int, EngineCoreOutputs]) -> None:
        """Put the record of a finished request into its last output."""
        asked = FIELD in (tree.sampling.extra_args or {})
        record = tree.record(self.tally, asked, self.weight_version)
        if record is not None:
            self._attach(RECORD, record, tree.root.request, results)
        if tree.weights and tree.controller.root.forks:
            versions = tree.weights.of_document(tree.controller.root, self.weight_version)
            self._attach(VERSIONS, versions, tree.root.request, results)

    def _dissolve(self, tree: RequestTree, status: RequestStatus) -> None:
        """Free all that vLLM still holds for a finished tree."""
        ids = tree.ids()
        super().finish_requests([i for i in ids if i in self.requests], status)
        self._forget_tree(tree)

    def _forget_tree(self, tree: RequestTree) -> None:
        for request_id in tree.ids():
            self._members.pop(request_id, None)
        for trees in (self._structured, self._marked, self._exiles, self._telling):
            trees.pop(id(tree), None)

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Request]:
        """An aborted request takes its branches with it. Returns those of them that clients know."""
        if request_ids is None:
            wanted = set(self.requests)
            self.last_outputs.clear()
        else:
            wanted = {request_ids} if isinstance(request_ids, str) else set(request_ids)
        branches: set[str] = set()
        for request_id in list(wanted):
            member = self._members.get(request_id)
            if member is not None:
                actions = self._guard.aside(member.tree.controller.abort, otherwise=[])
                if request_ids is None:
                    self._guard.aside(self._prepare_last_output, member.tree, actions, otherwise=None)
                branches.update(member.tree.ids())
                branches.remove(member.tree.root.request.request_id)
                self._forget_tree(member.tree)
        finished = super().finish_requests(wanted | branches, finished_status)
        if not self.requests:  # no step follows in which copies and moves could be done
            self._moves = []
            self._table.drop_copies()
            self._check.enter(remains(self))
        return [request for request in finished if request.request_id not in branches]
