"""One drawn request over HTTP, as it is, and whether what comes back may come back."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from multiverse.stress.asks import Ask
from multiverse.stress.fields import encode
from multiverse.stress.results import PAUSED, Result

_JSON = {"Content-Type": "application/json"}
_ERROR = "an error with status 200"
LONGEST_ERROR = 4096
"""Bytes that an error may have, whatever was asked."""


async def exchange(client: aiohttp.ClientSession, ask: Ask) -> Result:
    """Send a request and judge its answer. Nothing that a server does is raised; it is an outcome."""
    try:
        async with client.post(ask.path, data=encode(ask.body), headers=_JSON) as response:
            if ask.leaves is not None and response.status == 200:
                return await _leave(ask, response)
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        return Result(ask, "failed", detail=f"{type(error).__name__} {error}")
    if response.status != 200:
        return _judge_refusal(ask, response.status, text)
    if ask.must_be_refused:
        return Result(ask, "failed", detail=f"was not refused: {text[:200]}")
    problem = _problem_of_stream(text) if response.content_type == "text/event-stream" else _problem(text)
    if problem.startswith(_ERROR) and (ask.may_fail or PAUSED in problem):
        return Result(ask, "refused", detail=problem)
    return Result(ask, "failed" if problem else "answered", detail=problem)


async def _leave(ask: Ask, response: aiohttp.ClientResponse) -> Result:
    """Read some lines, which may be of any length, and go away."""
    read = 0
    async for data in response.content.iter_any():
        read += data.count(b"\n")
        if read >= (ask.leaves or 0):
            break
    return Result(ask, "left")


def _judge_refusal(ask: Ask, status: int, text: str) -> Result:
    if (status == 500 and ask.may_fail) or (status == 503 and PAUSED in text):
        return Result(ask, "refused", detail=text[:300])
    if status >= 500 or (ask.must_be_refused and status != 400):
        return Result(ask, "failed", detail=f"{status}: {text[:300]}")
    if len(text) > LONGEST_ERROR and ask.must_be_refused:
        return Result(ask, "failed", detail=f"an error of {len(text)} bytes: {text[:100]}")
    return Result(ask, "refused")


def _problem(text: str) -> str:
    """What is wrong with a whole answer; nothing if it is one."""
    try:
        answer = json.loads(text)
    except ValueError:
        return f"no JSON: {text[:100]}"
    return next(filter(None, map(_problem_of_part, answer if isinstance(answer, list) else [answer])), "")


def _problem_of_stream(text: str) -> str:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        return f"the stream breaks off: ...{text[-200:]}"
    return next(filter(None, map(_problem, lines[:-1])), "")


def _problem_of_part(part: Any) -> str:
    """An answer, or a chunk of one, may be an error of the client's, and none of the server's."""
    error = part.get("error") if isinstance(part, dict) else None
    if isinstance(error, dict) and not 400 <= int(error.get("code") or error.get("status") or 500) < 500:
        return f"{_ERROR}: {json.dumps(error)[:300]}"
    return "" if isinstance(part, dict) else f"no object: {str(part)[:100]}"
