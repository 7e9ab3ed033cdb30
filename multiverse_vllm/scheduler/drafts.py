"""Tokens that vLLM drafts for strands (speculative decoding): which of them are tried, and what came of them.

Workers draft for every row of a step from what it holds: a branch from the prefix and what it has said, its parent
from what was joined, too. vLLM verifies drafts by itself, whoever's they are; so they never change what is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from multiverse.serving.drafts import DraftLengths, read_draft_lengths
from multiverse.serving.options import Options
from multiverse_vllm.channels import OPTIONS
from multiverse_vllm.scheduler.state import State
from multiverse_vllm.scheduler.tree import Member


class Drafts:
    """The drafts of one scheduler.

    Args:
        options: the server's.
    """

    def __init__(self, state: State, options: Options) -> None:
        self._host, self._trees, self._tally = state.host, state.trees, state.tally
        self._queue, self._options = state.queue, options
        self._drafted: dict[str, int] = {}
        self._asked: WeakKeyDictionary[Request, DraftLengths | None] = WeakKeyDictionary()

    def trim(self, names: Iterable[str]) -> None:
        """vLLM has taken drafts for the requests `names`: keep as many as their options say, and none of whoever does
        not go on with what was sampled for it."""
        rows = len(self._queue.running())
        self._drafted.clear()
        for name in names:
            request = self._host.requests.get(name)
            if request is None or not request.spec_token_ids:
                continue
            member = self._trees.members.get(name)
            if member is not None and (member.draining or request.status is not RequestStatus.RUNNING):
                request.spec_token_ids = []
            elif (lengths := self._lengths(request, member)) is not None:
                request.spec_token_ids = request.spec_token_ids[: lengths.at(rows)]
            self._drafted[name] = len(request.spec_token_ids)

    def _lengths(self, request: Request, member: Member | None) -> DraftLengths | None:
        """Read once per request, one without blocks too."""
        if request not in self._asked:
            given = (request.sampling_params.extra_args or {}).get(OPTIONS)
            options = member.tree.options if member else self._options.for_request(given)
            self._asked[request] = None if options.drafts is None else read_draft_lengths(options.drafts)
        return self._asked[request]

    def note(self, output: SchedulerOutput, found: ModelRunnerOutput) -> None:
        """Count what was accepted, before vLLM looks at what a step has sampled. What is dropped then counts not."""
        for name, drafted in output.scheduled_spec_decode_tokens.items():
            accepted = max(0, len(found.sampled_token_ids[found.req_id_to_index[name]]) - 1)
            if member := self._trees.members.get(name):
                member.tree.accepted_drafts += accepted
                if member.tree.structured and (tried := self._tried(name, len(drafted))):
                    self._tally.count("draft_tokens", tried)
                    self._tally.observe(f"accepted_drafts_{'branch' if member.strand.parent else 'root'}", accepted)
            elif deferred := self._trees.deferred.get(name):
                deferred.accepted_drafts += accepted

    def _tried(self, name: str, scheduled: int) -> int:
        """How many tokens of a row somebody drafted: vLLM fills rows that begin up to as many as others have."""
        return min(scheduled, self._drafted.pop(name, 0))
