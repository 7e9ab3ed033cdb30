"""A finished answer as a picture: one lane per branch against positions and against time. One page, no network.

Knows records as `serving.report` makes them and transcripts as `structure.parser` reads them; no host, no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path as File
from typing import Any

from multiverse.decoding.document import statistics
from multiverse.errors import TranscriptError
from multiverse.structure.layout import layout, parallel_blocks
from multiverse.structure.tree import Block, Transcript
from multiverse.viewer.record import DEEPEST, read_tree

_DATA = File(__file__).parent
Key = tuple[int, ...]


@dataclass
class Piece:
    """A stretch of a lane between two blocks of it: positions `[start, end)`, seconds `[began, ended)` if known."""

    text: str
    start: int
    end: int
    tokens: int
    began: float | None = None
    ended: float | None = None


@dataclass
class Lane:
    """A branch, or the answer itself.

    Attributes:
        pieces: one more than it has blocks.
        started, closed: seconds since the request came.
        joined: where its parent goes on: position, and seconds if known.
        critical: whether the critical path leads through it.
    """

    key: Key
    label: str
    pieces: list[Piece]
    reason: str | None = None
    fallbacks: list[str] = field(default_factory=list)
    started: float | None = None
    closed: float | None = None
    joined: tuple[int, float | None] | None = None
    critical: bool = False

    @property
    def end(self) -> int:
        """One past its last position."""
        return max(piece.end for piece in self.pieces)


@dataclass
class Picture:
    """All lanes of an answer, parents before their branches, and its figures."""

    title: str
    lanes: list[Lane]
    figures: dict[str, Any]

    def __post_init__(self) -> None:
        by_key = {lane.key: lane for lane in self.lanes}
        self.lanes = self._ordered(by_key[()], by_key)
        for lane in reversed(self.lanes):
            self._place(lane, by_key)
        self._mark(by_key[()], by_key)

    def page(self) -> str:
        """The HTML page."""
        data = json.dumps(asdict(self), ensure_ascii=False).replace("<", "\\u003c")  # no tag can end the script
        return template("view.html").replace("/*DATA*/null", data)

    def write(self, file: File) -> None:
        """Write the page, and the directory it goes to if there is none.

        Raises:
            TranscriptError: if it can't be written there; nothing is then left behind.
        """
        try:
            page = self.page().encode()
        except UnicodeEncodeError as error:
            raise TranscriptError(f"the answer has half a character ({error.object[error.start]!a})") from None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(page)
        except OSError as error:
            raise TranscriptError(f"{file}: can't be written: {error.strerror}; choose another with -o") from error

    @staticmethod
    def _children(lane: Lane, block: int, by_key: Mapping[Key, Lane]) -> list[Lane]:
        found: list[Lane] = []
        while (child := by_key.get((*lane.key, block, len(found)))) is not None:
            found.append(child)
        return found

    def _ordered(self, lane: Lane, by_key: Mapping[Key, Lane]) -> list[Lane]:
        lanes = [lane]
        for block in range(len(lane.pieces) - 1):
            for child in self._children(lane, block, by_key):
                lanes += self._ordered(child, by_key)
        return lanes

    def _place(self, lane: Lane, by_key: Mapping[Key, Lane]) -> None:
        """When each piece was decoded, and where the branches of each block were joined."""
        at = lane.started
        for block, piece in enumerate(lane.pieces[:-1]):
            children = self._children(lane, block, by_key)
            starts = [child.started for child in children if child.started is not None]
            ends = [child.closed for child in children if child.closed is not None]
            piece.began, piece.ended = at, min(starts, default=None)
            at = max(ends, default=None)
            for child in children:
                child.joined = (lane.pieces[block + 1].start, at)
        lane.pieces[-1].began, lane.pieces[-1].ended = at, lane.closed

    def _mark(self, lane: Lane, by_key: Mapping[Key, Lane]) -> None:
        """Mark what determines the length: in every block the branch that ends last."""
        lane.critical = True
        for block in range(len(lane.pieces) - 1):
            if children := self._children(lane, block, by_key):
                self._mark(max(children, key=lambda child: child.end), by_key)


def template(name: str) -> str:
    """A page of this package, with the style that all share in it."""
    page = (_DATA / name).read_text(encoding="utf-8")
    return page.replace("/*STYLE*/", (_DATA / "page.css").read_text(encoding="utf-8"))


def from_record(record: Mapping[str, Any], title: str) -> Picture:
    """The picture of an answer that came with `return_tree`.

    Args:
        record: `choices[i].multiverse` of a response.

    Raises:
        TranscriptError: if it is none.
    """
    lanes = [_lane(strand) for strand in read_tree(record)]
    figures = {name: value for name, value in record.items() if name != "tree"}
    return Picture(title, lanes, figures)


def _lane(strand: Mapping[str, Any]) -> Lane:
    positions, ends = strand["positions"], [*strand["forks"], len(strand["positions"])]
    texts = strand.get("texts") or [""] * len(ends)
    pieces: list[Piece] = []
    start = 0
    for end, text in zip(ends, texts, strict=True):
        first = positions[start] if start < len(positions) else (pieces[-1].end if pieces else 0)
        pieces.append(Piece(text, first, positions[end - 1] + 1 if end > start else first, end - start))
        start = end
    return Lane(
        key=tuple(strand["key"]),
        label=strand["label"],
        pieces=pieces,
        reason=strand["finish_reason"],
        fallbacks=[reason for _, reason in strand["fallbacks"]],
        started=strand.get("started"),
        closed=strand.get("closed"),
    )


def from_transcript(transcript: Transcript, title: str) -> Picture:
    """The picture of an answer of which only the text is known: no times, positions counted in its tokens.

    Raises:
        TranscriptError: if its blocks are nested without end.
    """
    if max((block.depth for block in transcript.walk()), default=0) > DEEPEST:
        raise TranscriptError(f"blocks are nested more than {DEEPEST} deep, which can't be drawn")
    positions = layout(transcript).positions
    lanes: list[Lane] = []
    _body((), "", 0, len(transcript), transcript.blocks, transcript, positions, lanes)
    return Picture(title, lanes, statistics(transcript).to_dict())


def _body(
    key: Key,
    label: str,
    start: int,
    end: int,
    blocks: Sequence[Block],
    transcript: Transcript,
    positions: list[int],
    lanes: list[Lane],
) -> None:
    lane = Lane(key, label, [])
    lanes.append(lane)
    for block in parallel_blocks(list(blocks)):
        lane.pieces.append(_piece(start, block.paths[0].start, transcript, positions))
        for i, path in enumerate(block.paths):
            child = (*key, len(lane.pieces) - 1, i)
            _body(child, path.label, path.start, path.end, path.blocks, transcript, positions, lanes)
        start = block.paths[-1].end
    lane.pieces.append(_piece(start, end, transcript, positions))


def _piece(start: int, end: int, transcript: Transcript, positions: list[int]) -> Piece:
    text = "".join(str(token) for token in transcript.tokens[start:end])
    first = positions[start] if start < len(positions) else positions[-1] + 1 if positions else 0
    return Piece(text, first, positions[end - 1] + 1 if end > start else first, end - start)


def read(data: Any, title: str) -> Picture | None:
    """The picture in a JSON response, the first choice that has a tree; `None` if there is none.

    Raises:
        TranscriptError: if its tree is none.
    """
    choices = data.get("choices") if isinstance(data, Mapping) else None
    listed = choices if isinstance(choices, list) else []
    told = [choice.get("multiverse") for choice in listed if isinstance(choice, Mapping)]
    for record in (data, *told):
        if isinstance(record, Mapping) and "tree" in record:
            return from_record(record, title)
    return None
