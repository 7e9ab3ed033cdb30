"""What a client sees of a tree: one answer in document order, one end, and a record of how it was decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple

from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.request import RequestStatus

from multiverse.decoding.actions import Action
from multiverse.decoding.stream import tokens_of
from multiverse_vllm.channels import EVENTS, OPTIONS, RECORD, VERSIONS
from multiverse_vllm.plan import Scoring
from multiverse_vllm.scheduler.host import Request
from multiverse_vllm.scheduler.logprobs import document_logprobs, record_rows
from multiverse_vllm.scheduler.prompt_logprobs import prompt_tensors, record_scores
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.stops import STATUS
from multiverse_vllm.scheduler.tokens import Tokens
from multiverse_vllm.scheduler.tree import Member, RequestTree

Results = dict[int, EngineCoreOutputs]
"""What a step puts out, by client."""


class Answers:
    """Answers the clients of one scheduler.

    Attributes:
        weight_version: what vLLM calls the weights that it has now.
        last_outputs: by request id, what an operator's abort leaves to be sent (`scheduler.aborts`).
    """

    def __init__(self, state: State, tokens: Tokens) -> None:
        self._trees, self._queue, self._tally, self._tokens = state.trees, state.queue, state.tally, tokens
        self.weight_version = "default"
        self.last_outputs: dict[str, EngineCoreOutput] = {}

    # --- a step is over ----------------------------------------------------------------------------------------

    def take_scores(self, wanted: dict[str, Scoring], found: dict[str, LogprobsTensors]) -> None:
        """Move what the workers scored from `found`, vLLM's own prompt logprobs by request, to the trees."""
        for request, asked in wanted.items():
            tensors, root = found.pop(request, None), self._trees.members.get(asked.root)
            if root is not None:
                self._trees.attempt(record_scores, root.tree, asked, tensors)

    def collect(self, results: Results) -> dict[str, EngineCoreOutput]:
        """Write down what was sampled for quiet trees, and take out what clients are not shown as it is.

        First of all that follows a step, as it may have sampled tokens of trees that are about to be replayed.

        Returns:
            the outputs of the roots of forked trees that wait for an answer, by request id.
        """
        members = self._trees.members
        own: dict[str, EngineCoreOutput] = {}
        for batch in results.values():
            shown = []
            for output in batch.outputs:
                member = members.get(output.request_id)
                if member is None:
                    shown.append(output)
                    continue
                try:  # not by `attempt`: each token passes here
                    if self._is_shown(member, output, own):
                        shown.append(output)
                except Exception as error:
                    self._trees.guard.caught(member.tree.root.request, error)
            batch.outputs = shown
        return own

    def _is_shown(self, member: Member, output: EngineCoreOutput, own: dict[str, EngineCoreOutput]) -> bool:
        """Write down what vLLM sampled for a strand. Returns whether its client is shown it now, and just so."""
        tree, strand = member.tree, member.strand
        decided = output.request_id in self._tokens.asked
        if output.new_logprobs is not None:
            if not decided:
                member.sampled = len(strand.tokens)
            record_rows(member, output)
        if not decided:
            tree.controller.extend(strand, output.new_token_ids)
        if not tree.controller.root.forks:
            return True
        if decided or tree.rows is not None:
            self._tokens.to_answer[id(tree)] = tree
            if strand.parent is None:
                own[output.request_id] = output
            return False
        live = tree.stream.follow(strand, len(output.new_token_ids))
        if live and strand.parent is not None:
            output.request_id, output.events = tree.root.request.request_id, None
        return live

    def answer(self, own: dict[str, EngineCoreOutput], results: Results) -> None:
        """Answer all trees about which something was decided or is to be said, one output each, in document order."""
        for tree in self._tokens.take_to_answer():
            if tree.root.request.request_id not in self._trees.failed:
                self._trees.attempt(self._answer_tree, tree, own, results)

    def _answer_tree(self, tree: RequestTree, own: dict[str, EngineCoreOutput], results: Results) -> None:
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
                send(output, root, results)
        if tree.scores is not None and tree.scores.complete and (first := _output(root, results)):
            first.new_prompt_logprobs_tensors, tree.scores = prompt_tensors(tree), None
        if tree.events:
            self._add_events(tree, results)
        if finish is not None:
            self.add_record(tree.root, results)
            self.end(tree, STATUS[finish])

    def _add_events(self, tree: RequestTree, results: Results) -> None:
        """Put what happened into the root's output of this step; if there is none, into its next one."""
        events = [astuple(event) for event in tree.events]
        if _attach(EVENTS, events, tree.root.request, results):
            tree.events = []

    def add_record(self, root: Member, results: Results) -> None:
        """Put the record of a finished request into its last output."""
        tree = root.tree
        asked = OPTIONS in (tree.sampling.extra_args or {})
        record = tree.record(self._tally, asked, self.weight_version)
        if record is not None:
            _attach(RECORD, record, root.request, results)
        if tree.weights and tree.controller.root.forks:
            versions = tree.weights.of_document(tree.controller.root, self.weight_version)
            _attach(VERSIONS, versions, root.request, results)

    def end(self, tree: RequestTree, status: RequestStatus) -> None:
        """End a tree in vLLM, which frees all that it still holds for it."""
        self._queue.finish(tree.ids(), status)
        self._trees.forget(tree)

    # --- from outside ------------------------------------------------------------------------------------------

    def abort(self, request_ids: Iterable[str], by_operator: bool) -> set[str]:
        """Forget the trees of these requests, before vLLM ends them; an operator's abort leaves their last outputs.

        Returns:
            ids of their branches, which end with them and which no client knows.
        """
        if by_operator:
            self.last_outputs.clear()
        branches: set[str] = set()
        for request_id in list(request_ids):
            member = self._trees.members.get(request_id)
            if member is not None:
                tree, guard = member.tree, self._trees.guard
                actions: list[Action] = guard.aside(tree.controller.abort, otherwise=[])
                if by_operator:
                    guard.aside(self._prepare_last_output, tree, actions, otherwise=None)
                branches |= {*tree.ids()} - {tree.root.request.request_id}
                self._trees.forget(tree)
        return branches

    def _prepare_last_output(self, tree: RequestTree, actions: Sequence[Action]) -> None:
        """Keep what is left to be sent of an answer that an operator aborts."""
        root, results = tree.root.request, dict[int, EngineCoreOutputs]()
        tree.events += tree.events_of(tree.controller.root, actions)
        spans = tree.stream.drain_spans() if tree.controller.root.forks else []
        output = EngineCoreOutput(root.request_id, tokens_of(spans), new_logprobs=document_logprobs(tree, spans))
        send(output, root, results)
        self._add_events(tree, results)
        self.add_record(tree.root, results)
        self.last_outputs[root.request_id] = output

    def replace_weights(self, version: str) -> None:
        """The weights are those of `version` from now on."""
        if version != self.weight_version:
            for tree in {id(member.tree): member.tree for member in self._trees.members.values()}.values():
                tree.weights.replaced(tree.controller.root, self.weight_version)
            self.weight_version = version


def send(output: EngineCoreOutput, root: Request, results: Results) -> None:
    """Put `output` into what this step puts out."""
    if root.client_index not in results:
        results[root.client_index] = EngineCoreOutputs()
    results[root.client_index].outputs.append(output)


def _output(root: Request, results: Results) -> EngineCoreOutput | None:
    """What `root` puts out in this step, if anything."""
    outputs = results[root.client_index].outputs if root.client_index in results else ()
    return next((output for output in outputs if output.request_id == root.request_id), None)


def _attach(name: str, value: object, root: Request, results: Results) -> bool:
    """Give `value` to the front end together with what `root` puts out in this step, if it does."""
    output = _output(root, results)
    if output is not None:
        output.kv_transfer_params = {**(output.kv_transfer_params or {}), name: value}
    return output is not None
