"""What happens to a token between vLLM's sampler and its outputs."""

from __future__ import annotations

from collections.abc import Iterable

from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.strand import Status
from multiverse.serving.quiet import is_quiet
from multiverse.serving.verdict import Verdict
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.stops import STATUS, ended_by_vllm, truncate
from multiverse_vllm.scheduler.tree import Member, RequestTree


class Tokens:
    """Hands sampled tokens to controllers. What is to be done about them waits until vLLM's loop is left.

    Attributes:
        asked: by request id, the members whose tokens are decided about one by one in this step; all others are quiet.
        closing: members whose strand has forked or closed.
        to_answer: by their `id`, trees of which there may be something to send that vLLM doesn't send by itself.
    """

    def __init__(self, state: State) -> None:
        self._host, self._trees = state.host, state.trees
        self._most = 1 + state.host.num_spec_tokens
        self.asked: dict[str, Member] = {}
        self.closing: list[Member] = []
        self.to_answer: dict[int, RequestTree] = {}

    def ask(self, deciding: Iterable[str]) -> bool:
        """Before vLLM looks at a step's results: find those whose tokens have to be decided about, trees as a whole.

        Args:
            deciding: the requests that sampled a deciding token.

        Returns:
            whether there are any.
        """
        trees = self._trees
        asked = []
        for tree in trees.all.values():
            try:  # not by `attempt`: each step asks of each tree
                if trees.failed or not is_quiet(tree, self._most):
                    asked.append(tree)
            except Exception as error:
                trees.guard.caught(tree.root.request, error)
                asked.append(tree)
        asked += [trees.members[name].tree for name in deciding if name in trees.members]
        if asked or self.asked:
            self.to_answer |= {id(tree): tree for tree in asked}
            self.asked = {member.request.request_id: member for tree in asked for member in tree.members.values()}
        return bool(asked)

    def accept(self, member: Member, new_token_ids: list[int]) -> tuple[list[int], bool]:
        """Decide about what was sampled for a strand in a step, in order; as `_update_request_with_output`.

        More than one token comes where drafts were accepted. What comes behind one that forks, closes or ends the
        strand is dropped (SEMANTICS section 7).
        """
        strand, first, stopped = member.strand, len(member.strand.tokens), False
        kept = member.sampled = first
        for token in new_token_ids:
            verdict, stopped = self._decide(member, token, first)
            kept = verdict.kept
            if stopped or strand.status is not Status.RUNNING:
                break
        if kept == first + len(new_token_ids):  # the common case
            return new_token_ids, stopped
        kept = max(0, kept - first)
        if not kept:
            member.sampled = None
        member.tree.accepted_drafts -= max(0, len(new_token_ids) - 1 - kept)  # the last one was not drafted
        return new_token_ids[:kept], stopped

    def _decide(self, member: Member, token: int, first: int) -> tuple[Verdict, bool]:
        """Decide about one token: vLLM's own rules first, then ours. Returns whether it ends the client's request."""
        request, tree, strand = member.request, member.tree, member.strand
        root, offset = strand.parent is None, len(strand.tokens)
        request.append_output_token_ids(token)
        ended = ended_by_vllm(request, self._host.max_model_len, branch=not root)
        verdict = tree.judge.decide(strand, token, ended)
        if events := tree.events_of(strand, verdict.actions):
            tree.events += events
        if not verdict.actions and verdict.kept == offset + 1:
            return verdict, False
        self._record_decision(member, offset, first, verdict)
        finish = tree.controller.finish_reason
        if finish is None or not root:
            return verdict, False
        if ended is None or (verdict.string is not None and ended is FinishReason.LENGTH):
            request.status, request.stop_reason = STATUS[finish], verdict.string
        return verdict, True

    def _record_decision(self, member: Member, offset: int, first: int, verdict: Verdict) -> None:
        """Note what was decided about the token at `offset` of a strand; its request gets the tokens to come.

        `first` is the offset of the first that was sampled in this step.
        """
        tree, strand, request = member.tree, member.strand, member.request
        tree.disturb()
        if verdict.kept <= offset:
            truncate(request, request.num_tokens - (offset + 1 - verdict.kept))
            tree.drop_rows(strand.key, verdict.kept)
        member.valid_kv_length = request.num_tokens
        request.append_output_token_ids(strand.tokens[verdict.kept :])
        if strand.status is not Status.RUNNING and tree.controller.finish_reason is None:
            self.closing.append(member)
            if strand.parent is None and len(strand.forks) == 1:  # until now, vLLM has answered by itself
                self._trees.structured[id(tree)] = tree
                tree.stream.skip(first)

    def take_closing(self) -> list[Member]:
        """The strands that have forked or closed since the last time."""
        closing, self.closing = self.closing, []
        return closing

    def take_to_answer(self) -> list[RequestTree]:
        """The trees of which there is something to send since the last time."""
        trees, self.to_answer = self.to_answer, {}
        return list(trees.values())
