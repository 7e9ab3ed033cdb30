"""What clients are told beside tokens, on its way out of the scheduler: SGLang's streamer, with a field more."""

from __future__ import annotations

from typing import Any

from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

from multiverse.responses import FIELD

TOLD = "multiverse_told"
"""Of an SGLang request: what its client was not told yet. A list of objects with `events` or `record`."""


def tell(request: Any, news: dict[str, Any]) -> None:
    """Send `news` along with what SGLang sends next of `request`."""
    request.__dict__.setdefault(TOLD, []).append(news)


class BlocksStreamer(SchedulerOutputStreamer):
    """SGLang's streamer. Requests that have nothing to tell go out as they are."""

    __slots__ = ()
    has_additional_customized_info = True

    def build_additional_customized_info(self, reqs: list[Any]) -> dict[str, list[Any]]:
        """For each request that goes out, what is to be told with it."""
        told = [req.__dict__.pop(TOLD, None) or [] for req in reqs]
        return {FIELD: told} if any(told) else {}
