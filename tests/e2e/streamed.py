"""Answers as streams of events, with the headers of requests and responses; and what `/metrics` says by engine."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from multiverse.models.task import Problem
from multiverse.wire.events import Branches, Event

Key = tuple[int, ...]
Counts = dict[str, dict[str, float]]
"""Values of the plugin's metrics by engine and name, summed over further labels."""
RANK = "X-data-parallel-rank"
"""The header by which both hosts let a client choose the engine."""


@dataclass
class Streamed:
    """An answer.

    Attributes:
        text: what a client that knows no events has read.
        record: figures and tree.
        usage: the token counts of the response.
    """

    headers: Mapping[str, str]
    text: str = ""
    events: list[Event] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> dict[Key, list[int]]:
        """Ids of each strand's own tokens."""
        return {tuple(strand["key"]): strand["token_ids"] for strand in self.record["tree"]}

    @property
    def is_forked(self) -> bool:
        """Whether a branch has said more than its header: it is being decoded."""
        return max(Counter(event.key for event in self.events if event.key).values(), default=0) > 2

    @property
    def forks(self) -> int:
        """Blocks that were forked."""
        return sum(len(strand["forks"]) for strand in self.record["tree"])

    @property
    def spliced(self) -> int:
        """Tokens taken over at joins: those of a branch in a branch are taken over twice."""
        return sum(len(ids) * (len(key) // 2) for key, ids in self.tokens.items())


def stream(
    url: str,
    asked: Problem | Sequence[Mapping[str, str]],
    rank: int | None = None,
    leave: Callable[[Streamed], bool] = lambda _: False,
    **more: Any,
) -> Streamed:
    """Ask a question, or for the next turn of a conversation.

    Args:
        rank: the engine that is to answer.
        leave: called with the answer as it grows; the client goes away once it says so.
        more: of the request's body; what it has of the field comes to what is asked anyhow.

    Raises:
        httpx.HTTPError: if the answer is an error, or is cut.
    """
    messages = [{"role": "user", "content": asked.prompt}] if isinstance(asked, Problem) else asked
    body = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 600, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "multiverse": {"stream": "events", "return_tree": True}}
    body |= more | {"multiverse": body["multiverse"] | more.get("multiverse", {})}
    headers = {} if rank is None else {RANK: str(rank)}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=120) as response:
        response.raise_for_status()
        answer = Streamed(response.headers)
        for line in response.iter_lines():
            if line == "data: [DONE]":
                return answer
            if line.startswith("data: "):
                _read(json.loads(line[6:]), answer)
                if leave(answer):
                    return answer
    raise httpx.RemoteProtocolError("the stream has no end")


def _read(chunk: dict[str, Any], answer: Streamed) -> None:
    """Add a chunk to the answer."""
    if "error" in chunk:
        raise httpx.HTTPError(str(chunk["error"]))
    answer.usage = chunk.get("usage") or answer.usage
    for choice in chunk["choices"]:
        answer.text += choice["delta"].get("content") or ""
        told = choice.get("multiverse") or {}
        answer.events += [Event.from_json(event) for event in told.get("events", ())]
        answer.record = told if "tree" in told else answer.record


def assert_whole(answer: Streamed) -> None:
    """No event is missing or too early, and what they tell is the document and the tree that come with them."""
    branches = Branches()
    for event in answer.events:
        strand = branches[event.key]
        if event.kind == "join":
            assert strand.state == "parked"
            assert {child.state for child in strand.blocks[-1]} == {"closed"}
        else:
            assert strand.state in ("waiting", "running"), event
        branches.apply(event)
    assert [event.kind for event in answer.events].index("finish") == len(answer.events) - 1
    assert branches.root.text == answer.text
    assert {branch.key: branch.tokens for branch in branches} == {key: len(ids) for key, ids in answer.tokens.items()}
    said = {branch.key: "".join(part for part in branch.parts if isinstance(part, str)) for branch in branches}
    assert said == {tuple(strand["key"]): "".join(strand["texts"]) for strand in answer.record["tree"]}


def scraped(url: str) -> Counts:
    """The plugin's metrics."""
    found: Counts = defaultdict(lambda: defaultdict(float))
    for name, labels, value in re.findall(r"^multiverse:(\w+)\{(.*)\} (\S+)$", httpx.get(f"{url}/metrics").text, re.M):
        (engine,) = re.findall(r'engine="(\w*)"', labels)
        found[engine][name] += float(value)
    return found


def added(url: str, before: Counts, done: Callable[[Counts], bool], seconds: float = 20) -> Counts:
    """What was counted since `before`, once it is `done`, or that time is up: hosts tell it a step late."""
    until = time.monotonic() + seconds
    while True:
        now = scraped(url)
        new = {one: {name: now[one][name] - before[one][name] for name in now[one]} for one in now}
        if done(new) or time.monotonic() > until:
            return new
        time.sleep(0.1)
