"""Runs of quiet trees (`multiverse.serving.quiet`): in most steps SGLang serves them as it does its own requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multiverse.serving.quiet import is_quiet
from multiverse_sglang.host import Batch, Request, Scheduler
from multiverse_sglang.scheduler.deferral import Sampled
from multiverse_sglang.scheduler.life import Life
from multiverse_sglang.scheduler.outputs import record_row
from multiverse_sglang.scheduler.requests import Run, WatchedRun, change
from multiverse_sglang.scheduler.stops import turn_ends
from multiverse_sglang.scheduler.tree import Member, RequestTree, member_of
from multiverse_sglang.scheduler.trees import Trees


class QuietRuns:
    """The runs of one scheduler whose tokens nobody has to be asked about. `begin` and `end` enclose a step's results.

    Attributes:
        sampled: what they sampled in this step.

    Args:
        deciding: the ids of tags.
        most: tokens that a step can bring for one of them.
    """

    def __init__(self, scheduler: Scheduler, trees: Trees, life: Life, deciding: frozenset[int], most: int) -> None:
        self._scheduler, self._trees, self._life, self._most = scheduler, trees, life, most
        model = scheduler.model_config
        self._deciding = deciding | turn_ends(scheduler.tokenizer, model.hf_eos_token_id)
        self._vocabulary = range(model.vocab_size)
        self.sampled: list[tuple[Member, Sequence[int]]] = []

    def begin(self, batch: Batch, sampled: Sampled) -> None:
        """Before SGLang looks at what a step sampled: watch the trees about which something may be decided."""
        rows = list(zip(batch.reqs, sampled.rows, strict=False))  # beams have rows without a request
        most = self._most
        asked = {tree for tree in self._trees if not tree.guard.run(tree, is_quiet, tree, most, otherwise=False)}
        asked.update(self._ending(rows, sampled.tokens))
        for tree in self._trees:
            if tree.watched is not (tree in asked):
                tree.guard.run(tree, _watch, tree, tree in asked, otherwise=None)
        for request, tokens in rows:
            member = member_of(request) if type(request) is Run else None
            if member is not None and not request.finished() and not request.is_retracted:
                self.sampled.append((member, tokens))

    def _ending(self, rows: list[tuple[Request, Sequence[int]]], sampled: Sequence[int]) -> Iterable[RequestTree]:
        """The trees with a run that gets a deciding token, or that SGLang ends for a reason of its own."""
        wild = bool(sampled) and (min(sampled) not in self._vocabulary or max(sampled) not in self._vocabulary)
        plain = not wild and self._deciding.isdisjoint(sampled)
        for request, tokens in rows:
            if request.to_finish is not None or not (plain or all(map(self._is_ordinary, tokens))):
                member = member_of(request)
                if member is not None:
                    yield member.tree

    def _is_ordinary(self, token: int) -> bool:
        return token in self._vocabulary and token not in self._deciding

    def end(self) -> None:
        """SGLang has written down what the runs sampled, and so do we; clients are shown what they can be."""
        shown, others = list[Request](), dict[RequestTree, None]()
        for member, tokens in self.sampled:
            try:
                if self._follow(member, tokens, others):
                    shown.append(member.tree.client)
            except Exception as error:
                member.tree.guard.caught(member.tree, error)
        self.sampled = []
        for tree in others:
            tree.guard.run(tree, self._life.show, tree, otherwise=None)
        if shown:
            self._scheduler.output_streamer.stream_output(shown, False)

    def _follow(self, member: Member, tokens: Sequence[int], others: dict[RequestTree, None]) -> bool:
        """Write down what a strand sampled. Returns whether its client has got it, and nothing else, to be shown; a
        tree that shows logprobs or versions of weights is put among the `others`."""
        tree, strand = member.tree, member.strand
        assert member.run is not None
        assert not member.run.finished(), member.run.rid  # its KV would be SGLang's to free
        tree.controller.extend(strand, tokens)
        if tree.rows is not None or tree.weights:
            member.sampled = range(len(strand.tokens) - len(tokens), len(strand.tokens))
            record_row(member)
            others[tree] = None
            return False
        if not tree.stream.follow(strand, len(tokens)):
            return False
        tree.client.output_ids.extend(tokens)
        return True


def _watch(tree: RequestTree, watched: bool) -> None:
    """Let SGLang alone decide about the runs of `tree` from now on, or not."""
    tree.watched = watched
    for member in tree.members.values():
        if member.run is not None:
            change(member.run, WatchedRun if watched else Run)
