"""Kinds of requests of SGLang, by what is to be done about their tokens. Most are SGLang's own, and stay that.

A request changes its kind while it is served: its class is changed. So nothing is put around what SGLang calls for each
token of every request.
"""

from __future__ import annotations

from typing import Any

from sglang.srt.managers.schedule_batch import Req

from multiverse_sglang.channels import DEFERRED
from multiverse_sglang.scheduler.tokens import accept, dropped_drafts, one_by_one
from multiverse_sglang.scheduler.tree import member_of


class WatchedRequest(Req):
    """Each of its tokens goes to the controller, as long as it is computed for a member."""

    def update_finish_state(self, new_accepted_len: int = 1) -> None:
        """As SGLang's, for so many tokens that were just appended."""
        member = member_of(self)
        if member is None or new_accepted_len < 1 or self.finished():
            super().update_finish_state(new_accepted_len)
            return
        try:
            accept(super().update_finish_state, self, member, new_accepted_len)
        except Exception as error:
            member.tree.guard.caught(member.tree, error)


class Run(Req):
    """It computes something for a strand, or did: no client hears of it. There is nothing to decide about its token."""


class WatchedRun(Run, WatchedRequest):
    """A run about whose token something may have to be decided."""


class AskedRequest(Req):
    """A deferred request whose client gets a record in any case: with its last token."""

    def update_finish_state(self, new_accepted_len: int = 1) -> None:
        """As SGLang's, for so many tokens that were just appended; one by one, as its record ends where it does."""
        if new_accepted_len < 1 or self.finished():
            super().update_finish_state(new_accepted_len)
            return
        for taken, _ in enumerate(one_by_one(self, new_accepted_len), 1):
            super().update_finish_state()
            if self.finished():
                if DEFERRED in self.__dict__:
                    getattr(self, DEFERRED).answer(self, dropped_drafts(new_accepted_len, taken))
                break


def change(request: Any, kind: type[Req]) -> None:
    """Let `request` be of this kind from now on."""
    request.__class__ = kind


def is_run(request: object) -> bool:
    """Whether `request` computes something for a strand, or did: no client hears of it."""
    return isinstance(request, Run)
