"""A request's branches as a client sees them: events in, a tree of texts out.

Events are plain JSON objects; `EventWriter` makes them on the server's side, `Branches` follows them on the client's.
Both know no HTTP and no host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from multiverse.decoding.stream import BranchEvent
from multiverse.wire.detokenizer import TextStream

Key = tuple[int, ...]
Kind = Literal["delta", "fork", "close", "join", "fallback", "finish"]
State = Literal["waiting", "running", "parked", "closed"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one branch, or to the root.

    Attributes:
        kind: `delta` (it has grown), `fork` (it has forked into `branches` and waits), `close` (it has ended), `join`
            (its branches were joined, it goes on), `fallback` (a block is not forked), `finish` (the answer is whole).
        key: the branch: `()` for the root, then one (block, branch) pair of ordinals per level.
        label: its label; empty for the root.
        text: new text of a `delta`.
        tokens: number of new tokens of a `delta`.
        branches: key and label of each branch of a `fork`.
        reason: why, for `close`, `fallback` and `finish`.
    """

    kind: Kind
    key: Key
    label: str = ""
    text: str = ""
    tokens: int = 0
    branches: tuple[tuple[Key, str], ...] = ()
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is sent: what does not concern its kind is left out."""
        event: dict[str, Any] = {"kind": self.kind, "key": list(self.key), "label": self.label}
        if self.kind == "delta":
            event |= {"text": self.text, "tokens": self.tokens}
        if self.kind == "fork":
            event["branches"] = [{"key": list(key), "label": label} for key, label in self.branches]
        if self.reason is not None:
            event["reason"] = self.reason
        return event

    @classmethod
    def from_json(cls, event: Mapping[str, Any]) -> Event:
        """What `to_json` wrote; unknown fields are ignored, so that later servers may say more."""
        return cls(
            kind=event["kind"],
            key=tuple(event["key"]),
            label=event.get("label", ""),
            text=event.get("text", ""),
            tokens=event.get("tokens", 0),
            branches=tuple((tuple(branch["key"]), branch["label"]) for branch in event.get("branches", ())),
            reason=event.get("reason"),
        )


class EventWriter:
    """Turns a request's events from tokens into text. One per request; every branch has a text stream of its own."""

    def __init__(self, tokenizer: Any, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._texts: dict[Key, TextStream] = {}

    def write(self, events: Iterable[BranchEvent]) -> Iterator[Event]:
        """The same events with text; what a branch still held back comes before it ends."""
        for event in events:
            key = tuple(event.key)
            stream = self._texts.get(key)
            if stream is None:
                stream = self._texts[key] = TextStream(self._tokenizer, self._skip)
            if event.kind == "delta":
                yield Event("delta", key, event.label, stream.feed(event.tokens), len(event.tokens))
                continue
            if event.kind in ("close", "finish") and (rest := stream.flush()):
                yield Event("delta", key, event.label, rest)
            branches = tuple((tuple(child), label) for child, label in event.branches)
            yield Event(event.kind, key, event.label, branches=branches, reason=event.reason)


@dataclass(eq=False)
class Branch:
    """One branch, or the root.

    Attributes:
        parts: its text in pieces, with the branches of each block where they belong.
        tokens: number of its own tokens so far.
        reason: why it ended, once it has.
        fallbacks: why goals of it were not forked.
    """

    key: Key
    label: str
    state: State = "waiting"
    parts: list[str | tuple[Branch, ...]] = field(default_factory=list)
    tokens: int = 0
    reason: str | None = None
    fallbacks: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its text and that of its branches, in document order."""
        return "".join(
            part if isinstance(part, str) else "".join(branch.text for branch in part) for part in self.parts
        )

    @property
    def blocks(self) -> list[tuple[Branch, ...]]:
        """The branches of each of its blocks."""
        return [part for part in self.parts if not isinstance(part, str)]

    def write(self, text: str) -> None:
        """Append to its text."""
        if self.parts and isinstance(self.parts[-1], str):
            self.parts[-1] += text
        elif text:
            self.parts.append(text)


class Branches:
    """All branches of one request, as far as they have grown.

    Attributes:
        root: the answer itself.
    """

    def __init__(self) -> None:
        self.root = Branch((), "", "running")
        self._known: dict[Key, Branch] = {(): self.root}

    def __getitem__(self, key: Key) -> Branch:
        return self._known[key]

    def __iter__(self) -> Iterator[Branch]:
        """The root first, then in the order in which they were forked."""
        return iter(self._known.values())

    def apply(self, event: Event) -> None:
        """Follow one event.

        Raises:
            KeyError: if it is about a branch that no event has named; an event was lost.
        """
        branch = self._known[event.key]
        match event.kind:
            case "delta":
                branch.write(event.text)
                branch.tokens += event.tokens
                if branch.state == "waiting":
                    branch.state = "running"
            case "fork":
                children = tuple(Branch(key, label) for key, label in event.branches)
                self._known.update({child.key: child for child in children})
                branch.parts.append(children)
                branch.state = "parked"
            case "join":
                branch.state = "running"
            case "fallback":
                branch.fallbacks.append(event.reason or "")
            case "close":
                branch.state, branch.reason = "closed", event.reason
            case "finish":
                for known in self:
                    known.state = "closed"
                    known.reason = known.reason or event.reason
