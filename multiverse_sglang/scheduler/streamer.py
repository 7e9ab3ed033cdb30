"""What clients are told beside tokens, on its way out of the scheduler: SGLang's streamer, with a field more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

from multiverse.wire.responses import FIELD
from multiverse_sglang.channels import EXTRAS

News = dict[str, Any] | Callable[[], dict[str, Any] | None]

_log = logging.getLogger("sglang.multiverse")


def tell(request: Any, news: News) -> None:
    """Send `news` along with what SGLang sends next of `request`; what there is to say by then, if it is a function."""
    request.__dict__.setdefault(EXTRAS, []).append(news)


def take_news(request: Any) -> list[dict[str, Any]]:
    """What the client of `request` was not told yet."""
    told = (news() if callable(news) else news for news in request.__dict__.pop(EXTRAS, None) or ())
    return [news for news in told if news is not None]


class BlocksStreamer(SchedulerOutputStreamer):
    """SGLang's streamer. Requests that have nothing to tell go out as they are."""

    __slots__ = ()
    has_additional_customized_info = True

    def build_additional_customized_info(self, reqs: list[Any]) -> dict[str, list[Any]]:
        """For each request that goes out, what is to be told with it."""
        told = [self._told(req) for req in reqs]
        return {FIELD: told} if any(told) else {}

    def _told(self, request: Any) -> list[dict[str, Any]]:
        """What is to be told of one request; that something went wrong with it, if it did."""
        try:
            return take_news(request)
        except Exception as error:
            _log.error("multiverse: request %s ended with an error: %r", request.rid, error, exc_info=error)
            return [{"failed": repr(error)}]
