"""What clients are sent beside tokens, on its way out of the scheduler: SGLang's streamer, with a field more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from weakref import WeakSet

from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

from multiverse.wire.responses import FIELD
from multiverse_sglang.channels import EXTRAS, FAILED
from multiverse_sglang.host import Request

Extras = dict[str, object]
"""What a client is sent beside tokens: `events` or a `record`."""

_unsent: WeakSet[Request] = WeakSet()
"""The requests that wait for an output with which something is to be sent."""
_log = logging.getLogger("sglang.multiverse")


def attach(request: Request, extras: Extras | Callable[[], Extras | None]) -> None:
    """Send `extras` along with what SGLang sends next of `request`; what there is by then, if it is a function."""
    request.__dict__.setdefault(EXTRAS, []).append(extras)
    _unsent.add(request)


def take_extras(request: Request) -> list[Extras]:
    """What the client of `request` was not sent yet."""
    waiting = request.__dict__.pop(EXTRAS, None) or ()
    _unsent.discard(request)
    found = (extras() if callable(extras) else extras for extras in waiting)
    return [extras for extras in found if extras is not None]


class BlocksStreamer(SchedulerOutputStreamer):
    """SGLang's streamer. Requests that have nothing of ours go out as they are."""

    __slots__ = ()
    has_additional_customized_info = True

    def build_additional_customized_info(self, reqs: list[Request]) -> dict[str, list[list[Extras]]]:
        """For each request that goes out, what is sent with it; nothing at all in most steps."""
        if not _unsent:
            return {}
        found = [self._extras(req) for req in reqs]
        return {FIELD: found} if any(found) else {}

    def _extras(self, request: Request) -> list[Extras]:
        """What is sent with one request; that something went wrong with it, if it did."""
        try:
            return take_extras(request)
        except Exception as error:
            _log.error("multiverse: request %s ended with an error: %r", request.rid, error, exc_info=error)
            return [{FAILED: repr(error)}]
