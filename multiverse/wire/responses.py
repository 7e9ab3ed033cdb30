"""What a host adds to its OpenAI responses: figures in `usage`, events and trees in the choices. Same on every host.

The engine tells of each choice in objects that hold `events`, the fields of a finished request's record, or both.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from multiverse.decoding.stream import BranchEvent
from multiverse.wire.events import EventWriter

FIELD = "multiverse"
"""Name of the field in requests, in `usage` and in choices."""
_SUMS = (
    *("tokens", "critical_path_tokens", "blocks", "branches", "injected_tokens", "recomputed_tokens"),
    "accepted_draft_tokens",
)
_MAXIMA = ("max_width", "depth")
STRUCTURED_OUTPUTS = (
    "structured outputs constrain one sequence, blocks make several: a request can't ask for both. "
    'Leave "multiverse" out, or say {"enabled": false}'
)
"""Why a request with both is refused."""
BEAM_SEARCH = (
    "beam search keeps several texts and decodes each plainly: a request can't ask for blocks too. "
    'Leave "multiverse" out, or say {"enabled": false}'
)
"""Why a request with both is refused."""
ELSEWHERE = (
    "multiverse is not taken here, but by /v1/chat/completions and /v1/completions: ask there, or leave it out; "
    "answers fork all the same"
)
"""Why a request with the field is refused on other paths."""


def usage(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`usage.multiverse`: the figures of one answer, or of several answers (`n > 1`) together.

    Args:
        records: as `multiverse.serving.report.report` makes them; at least one.
    """
    known = list(records)
    figures: dict[str, Any] = {name: sum(record[name] for record in known) for name in _SUMS}
    figures["parallel_degree"] = round(figures["tokens"] / max(1, figures["critical_path_tokens"]), 4)
    figures |= {name: max(record[name] for record in known) for name in _MAXIMA}
    fallbacks: Counter[str] = Counter()
    for record in known:
        fallbacks.update(record["fallbacks"])
    return figures | {"fallbacks": dict(sorted(fallbacks.items()))}


def extra_chunk(kind: str, head: Mapping[str, Any], index: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A chunk of a stream that adds nothing to the text: clients that know nothing of it read an empty delta.

    Args:
        kind: `chat.completion.chunk` or `text_completion`.
        head: `id`, `created` and `model` of the stream's other chunks.
        index: the choice that it is about.
        payload: `{"events": [...]}`, or the record of a finished choice with its `tree`.
    """
    nothing: dict[str, Any] = {"text": ""} if kind == "text_completion" else {"delta": {}}
    choice = {"index": index, **nothing, "finish_reason": None, FIELD: dict(payload)}
    return {**head, "object": kind, "choices": [choice]}


def add_texts(record: Mapping[str, Any], tokenizer: Any, skip_special_tokens: bool) -> None:
    """Give every strand of a record's tree its `texts`: one before each of its blocks, and one after the last."""
    for strand in record.get("tree", ()):
        ids, cuts = strand["token_ids"], [0, *strand["forks"], len(strand["token_ids"])]
        strand["texts"] = [
            tokenizer.decode(ids[start:end], skip_special_tokens=skip_special_tokens)
            for start, end in itertools.pairwise(cuts)
        ]


def merge(first: Mapping[str, Any] | None, second: Mapping[str, Any]) -> dict[str, Any]:
    """What an engine told of one choice in two steps, the second being the later."""
    events = [*(first or {}).get("events", ()), *second.get("events", ())]
    rest = {name: value for told in (first or {}, second) for name, value in told.items() if name != "events"}
    return {**rest, "events": events} if events else rest


@dataclass
class ResponseExtras:
    """What a response has beyond the host's own: what the engine said about the choices of one request.

    Attributes:
        tokenizer: for the texts of branches.
        skip_special_tokens: whether these have special tokens in them.
        records: by choice, once it is finished.
        events: by choice, as they are sent, since they were last taken.
    """

    tokenizer: Any
    skip_special_tokens: bool
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    _writers: dict[int, EventWriter] = field(default_factory=dict)

    def receive(self, index: int, extras: Mapping[str, Any] | None) -> None:
        """Take what comes with an output of choice `index`, if anything does."""
        if not extras:
            return
        if events := extras.get("events"):
            if index not in self._writers:
                self._writers[index] = EventWriter(self.tokenizer, self.skip_special_tokens)
            written = self._writers[index].write(BranchEvent(*event) for event in events)
            self.events.setdefault(index, []).extend(event.to_json() for event in written)
        if record := {name: value for name, value in extras.items() if name != "events"}:
            add_texts(record, self.tokenizer, self.skip_special_tokens)
            self.records[index] = record

    def take_events(self) -> dict[int, list[dict[str, Any]]]:
        """The events that were not taken yet, by choice."""
        events, self.events = self.events, {}
        return events

    def usage(self) -> dict[str, Any] | None:
        """`usage.multiverse`; `None` if there is nothing to tell."""
        return usage(self.records.values()) if self.records else None

    def trees(self) -> dict[int, dict[str, Any]]:
        """By choice, the records that are sent because a tree was asked for."""
        return {index: record for index, record in self.records.items() if "tree" in record}


@dataclass
class Lines:
    """The extra lines of one SSE stream of chunks.

    Attributes:
        extras: filled by what the host's lines are made of.
        kind: `chat.completion.chunk` or `text_completion`.
    """

    extras: ResponseExtras
    kind: str
    _heads: dict[int | None, dict[str, Any]] = field(default_factory=dict)
    _sent: set[int] = field(default_factory=set)

    async def around(self, lines: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """The host's lines, each with what is to be said before it."""
        async with aclosing(lines):
            async for line in lines:
                extra = list(self._extra())
                if any(index not in self._heads for index, _ in extra):
                    self._read_head(line)
                for index, payload in extra:
                    chunk = extra_chunk(self.kind, self._head(index), index, payload)
                    yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
                yield self._with_usage(line)

    def _extra(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, events in self.extras.take_events().items():
            yield index, {"events": events}
        for index, record in self.extras.trees().items():
            if index not in self._sent:
                self._sent.add(index)
                yield index, record

    def _read_head(self, line: str) -> None:
        """Remember `id`, `created` and `model` of the host's chunks, which may be a choice's own."""
        if line.startswith("data: {"):
            chunk = json.loads(line.removeprefix("data: "))
            if head := {name: chunk[name] for name in ("id", "created", "model") if name in chunk}:
                for index in (None, *(choice["index"] for choice in chunk.get("choices") or ())):
                    self._heads.setdefault(index, head)

    def _head(self, index: int) -> dict[str, Any]:
        """That of a choice, or of any as long as the host has said nothing of this one."""
        return self._heads.get(index) or self._heads.get(None, {})

    def _with_usage(self, line: str) -> str:
        """The line, with figures if it is the one that ends a stream with `usage`."""
        if not self.extras.records or '"choices":[]' not in line:
            return line
        chunk = json.loads(line.removeprefix("data: "))
        if chunk.get("usage"):
            chunk["usage"][FIELD] = self.extras.usage()
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
