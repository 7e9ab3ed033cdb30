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
                if trees.failed or not is_quiet(tree):
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
        """Decide about a sampled token: vLLM's own rules first, then ours; as `_update_request_with_output`."""
        request = member.request
        (token,) = new_token_ids
        tree, strand = member.tree, member.strand
        root, offset = strand.parent is None, len(strand.tokens)
        request.append_output_token_ids(token)
        ended = ended_by_vllm(request, self._host.max_model_len, branch=not root)
        verdict = tree.judge.decide(strand, token, ended)
        if events := tree.events_of(strand, verdict.actions):
            tree.events += events
        if not verdict.actions and verdict.kept == offset + 1:  # the common case
            member.sampled = offset
            return new_token_ids, False
        self._record_decision(member, offset, verdict)
        finish = tree.controller.finish_reason
        if finish is None or not root:
            return (new_token_ids if verdict.kept == offset + 1 else []), False
        if ended is None or (verdict.string is not None and ended is FinishReason.LENGTH):
            request.status, request.stop_reason = STATUS[finish], verdict.string
        return new_token_ids, True

    def _record_decision(self, member: Member, offset: int, verdict: Verdict) -> None:
        """Note what was decided about the token at `offset` of a strand; its request gets the tokens to come."""
        tree, strand, request = member.tree, member.strand, member.request
        tree.disturb()
        if verdict.kept <= offset:
            truncate(request, request.num_tokens - (offset + 1 - verdict.kept))
            tree.drop_rows(strand.key, verdict.kept)
        member.sampled = offset if verdict.kept > offset else None
        member.valid_kv_length = request.num_tokens
        request.append_output_token_ids(strand.tokens[verdict.kept :])
        if strand.status is not Status.RUNNING and tree.controller.finish_reason is None:
            self.closing.append(member)
            if strand.parent is None and len(strand.forks) == 1:  # until now, vLLM has answered by itself
                self._trees.structured[id(tree)] = tree
                tree.stream.skip(offset)

    def take_closing(self) -> list[Member]:
        """The strands that have forked or closed since the last time."""
        closing, self.closing = self.closing, []
        return closing

    def take_to_answer(self) -> list[RequestTree]:
        """The trees of which there is something to send since the last time."""
        trees, self.to_answer = self.to_answer, {}
        return list(trees.values())
