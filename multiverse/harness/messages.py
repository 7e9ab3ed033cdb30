"""Turns of chats as APIs and data sets write them. What a turn says is read whole, or refused by name.

A server with a reasoning parser takes the thoughts out of `content` and puts them beside it, under one of several
names; blocks are mostly there. Content may be a text or a list of parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASSISTANT = ("assistant", "gpt", "model")
REASONING = ("reasoning", "reasoning_content", "thinking")
"""Where a turn keeps its thoughts."""
UNREAD = ("tool_calls", "function_call", "refusal", "audio", "images")
"""What else a turn can say; none of it is text with blocks."""
_PARTS = {"text": "text", "output_text": "text", "input_text": "text", "thinking": "thinking"}
_PARTS |= {"reasoning": "text", "reasoning_text": "text", "summary_text": "text"}
"""Kinds of parts, and where each keeps its text."""


class MessageError(ValueError):
    """Why a turn can't be read."""


def chat(value: Any) -> list[dict[str, Any]]:
    """The turns of a chat: a list of them, or their columns, as some data sets store them.

    Raises:
        MessageError: if it is neither.
    """
    if isinstance(value, Mapping):
        lengths = {len(column) if isinstance(column, list) else -1 for column in value.values()}
        if len(lengths) != 1 or -1 in lengths:
            raise MessageError("must be a list of turns, or a mapping of equally long lists")
        return [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise MessageError(f"must be a list of turns, is {type(value).__name__}")
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            raise MessageError(f"turn {number}: must be an object, is {type(turn).__name__}")
    return value


def is_chat(value: Any) -> bool:
    """Whether `value` is turns rather than something else."""
    try:
        turns = chat(value)
    except MessageError:
        return False
    return bool(turns) and all("role" in turn or "from" in turn for turn in turns)


def role(turn: Mapping[str, Any]) -> Any:
    """Who speaks."""
    return turn.get("role", turn.get("from"))


def content(turn: Mapping[str, Any]) -> str:
    """The content of a turn as text; empty if it has none.

    Raises:
        MessageError: if a part of it is no text, naming its kind.
    """
    value = turn.get("content", turn.get("value"))
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise MessageError(f"content must be a text or a list of parts, is {type(value).__name__}")
    return "".join(map(_part, value))


def reasoning(turn: Mapping[str, Any]) -> str:
    """The thoughts that stand beside the content; empty if there are none.

    Raises:
        MessageError: if they stand there under two names and differ, or are no text.
    """
    found = {name: turn[name] for name in REASONING if turn.get(name)}
    for name, value in found.items():
        if not isinstance(value, str):
            raise MessageError(f"{name!r} must be a text, is {type(value).__name__}")
    if len(set(found.values())) > 1:
        raise MessageError(f"holds different texts in {' and '.join(map(repr, found))}")
    return next(iter(found.values()), "")


def spoken(turn: Mapping[str, Any]) -> str:
    """All that a turn says, its thoughts first.

    Raises:
        MessageError: if that is not only text, naming what else it holds.
    """
    for name in UNREAD:
        if turn.get(name):
            raise MessageError(f"holds {name!r}, which can't be read as text")
    return reasoning(turn) + content(turn)


def one_text(value: Any) -> str | None:
    """A text or number, alone or as the only item of a list, as text; `None` for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
    if kind not in _PARTS:
        raise MessageError(f"holds a part of kind {kind!r}, which can't be read as text")
    text = part.get(_PARTS[kind])
    if not isinstance(text, str):
        raise MessageError(f"holds a part of kind {kind!r} without a text")
    return text
