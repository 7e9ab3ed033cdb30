"""Whether and when a request that failed is sent again, as the endpoint asks.

The `openai` client's own retries are not used: 3.57 makes none at all where `Retry-After` says more than 120 seconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import openai

LONGEST_WAIT = 3600.0
"""Seconds; an endpoint that asks for more is left to a later run."""
_FIRST, _MOST = 0.5, 30.0
"""Seconds before the first retry, which double, and the most, where the endpoint doesn't say."""


def wait_before_retry(error: openai.OpenAIError, attempt: int) -> float | None:
    """Seconds to wait before the next try; `None` if there should be none.

    Args:
        error: what the try number `attempt` failed with, counted from 0.
    """
    told = None
    if isinstance(error, openai.APIStatusError):
        if error.status_code not in (408, 409, 429) and error.status_code < 500:
            return None
        told = _retry_after(error.response.headers)
    elif not isinstance(error, openai.APIConnectionError):
        return None
    if told is None:
        return min(_MOST, _FIRST * 2.0**attempt) * random.uniform(0.75, 1.0)
    return told if told <= LONGEST_WAIT else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds the endpoint asks to wait: a number, or until a date."""
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
