"""The first rank's time, for all ranks: it goes to them with the requests that SGLang broadcasts.

So no rank decides by a clock of its own, of which no two agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Clock:
    """Stands in the place of the `receiver` of requests of a scheduler.

    Of the times that ranks offer SGLang sends the first rank's, which has the requests, to all.

    Args:
        tell: called with what time it is, in seconds, before the requests that came are looked at.
    """

    def __init__(self, receiver: Any, tell: Callable[[float], None]) -> None:
        self._receiver, self._tell = receiver, tell

    def recv_requests(self, local_reqs: list[Any] | None = None) -> list[Any]:
        """As SGLang's."""
        received = self._receiver.recv_requests(local_reqs=[*(local_reqs or ()), time.monotonic()])
        for now in [message for message in received if isinstance(message, float)]:
            self._tell(now)
        return [message for message in received if not isinstance(message, float)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._receiver, name)
