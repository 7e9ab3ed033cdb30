"""Tokens that vLLM drafts for strands (speculative decoding): which of them are tried, and what came of them.

Workers draft for every row of a step from what it holds: a branch from the prefix and what it has said, its parent
from what was joined, too. vLLM verifies drafts by itself, whoever's they are; so they never change what is said.
"""

from __future__ import annotations

from collections.abc import Iterable

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import RequestStatus

from multiverse.serving.drafts import DraftLengths, read_draft_lengths
from multiverse.serving.options import Options
from multiverse_vllm.scheduler.state import State

PLACEHOLDER = -1
"""What vLLM fills a row up with, to as many as others have."""


class Drafts:
    """The drafts of one scheduler.

    Args:
        options: the server's.
    """

    def __init__(self, state: State, options: Options) -> None:
        self._host, self._trees, self._tally = state.host, state.trees, state.tally
        self._queue, self._options = state.queue, options

    def trim(self, names: Iterable[str]) -> None:
        """vLLM has taken drafts for the requests `names`: keep as many as their options say, and none of whoever does
        not go on with what was sampled for it."""
        rows = len(self._queue.running())
        for name in names:
            request = self._host.requests.get(name)
            if request is None or not request.spec_token_ids:
                continue
            member = self._trees.members.get(name)
            if member is not None and (member.draining or request.status is not RequestStatus.RUNNING):
                request.spec_token_ids = []
            elif (lengths := self._lengths(name)) is not None:
                request.spec_token_ids = request.spec_token_ids[: lengths.at(rows)]

    def _lengths(self, name: str) -> DraftLengths | None:
        member, deferred = self._trees.members.get(name), self._trees.deferred.get(name)
        options = member.tree.options if member else deferred.options if deferred else self._options
        return None if options.drafts is None else read_draft_lengths(options.drafts)

    def note(self, output: SchedulerOutput, found: ModelRunnerOutput) -> None:
        """Count what was accepted, before vLLM looks at what a step has sampled. What is dropped then counts not."""
        for name, drafted in output.scheduled_spec_decode_tokens.items():
            accepted = max(0, len(found.sampled_token_ids[found.req_id_to_index[name]]) - 1)
            if member := self._trees.members.get(name):
                member.tree.accepted_drafts += accepted
                if member.tree.structured and (tried := len(drafted) - drafted.count(PLACEHOLDER)):
                    self._tally.count("draft_tokens", tried)
                    self._tally.observe(f"accepted_drafts_{'branch' if member.strand.parent else 'root'}", accepted)
            elif deferred := self._trees.deferred.get(name):
                deferred.accepted_drafts += accepted
