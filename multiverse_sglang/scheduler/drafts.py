"""Tokens that SGLang drafts for strands (speculative decoding): what came of them.

SGLang's n-gram worker drafts for every row of a decode step, as many tokens for each, from what any row has said, and
its target model verifies them, whoever's they are; so they never change what is said.
"""

from __future__ import annotations

from sglang.srt.runtime_context import get_spec

from multiverse.serving.metrics import Tally
from multiverse_sglang.host import Batch, Scheduler
from multiverse_sglang.scheduler.deferral import Sampled
from multiverse_sglang.scheduler.tree import member_of


class Drafts:
    """The drafts of one scheduler.

    Attributes:
        most: tokens that a step can bring for a row: all drafts, and one behind them.
    """

    def __init__(self, scheduler: Scheduler, tally: Tally) -> None:
        self.most: int = 1 if scheduler.spec_algorithm.is_none() else get_spec().speculative_num_draft_tokens
        self._tally = tally

    def note(self, batch: Batch, sampled: Sampled) -> None:
        """Count what was accepted, before SGLang hands it out. What is dropped then counts not (`tokens.accept`)."""
        if not batch.forward_mode.is_decode():
            return
        for request, row in zip(batch.reqs, sampled.rows, strict=False):
            member = member_of(request)
            if member is None or request.finished() or request.is_retracted:
                continue
            accepted, tree = len(row) - 1, member.tree
            tree.accepted_drafts += accepted
            if tree.structured:
                self._tally.count("draft_tokens", self.most - 1)
                self._tally.observe(f"accepted_drafts_{'branch' if member.strand.parent else 'root'}", accepted)
