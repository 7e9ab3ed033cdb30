"""Reading answers of a model from files: plain text, JSON, JSON lines, chats, API responses.

Nothing is lost silently: what can't be read becomes a `Problem` with its place, and reading goes on behind it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEXT_FIELDS = ("response", "completion", "output", "generated_text", "generation", "prediction", "text", "content")
"""Where a record keeps the model's answer, in this order of preference."""

CHAT_FIELDS = ("messages", "conversations", "conversation")
ID_FIELDS = ("id", "uid", "custom_id", "question_id", "problem_id", "idx")


@dataclass(frozen=True)
class Record:
    """One answer: an identifier, the text that the model wrote, without the prompt, and what else the record holds."""

    id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """Something that could not be read."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def read_records(source: str, field: str | None = None) -> Iterator[Record | Problem]:
    """Read the answers in a file.

    Args:
        source: a path; `-` is standard input. `.json` and `.jsonl` say what is inside; else it is found out.
        field: the key of a record that holds the answer; found out if not given.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        yield Problem(source, f"can't be read ({error.strerror})")
        return
    name = "stdin" if source == "-" else Path(source).name
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Problem(source, f"is not UTF-8 (byte {error.start})")
        return
    suffix = Path(source).suffix.lower()
    if suffix == ".jsonl" or (suffix != ".json" and _looks_like_lines(text)):
        yield from _from_lines(text, name, field)
    elif suffix == ".json" or text.lstrip()[:1] in ("{", "["):
        yield from _from_json(text, name, field, must=suffix == ".json")
    else:
        yield Record(name, text)


def _looks_like_lines(text: str) -> bool:
    """Whether the first line is a JSON object by itself, and not the only one."""
    first, _, rest = text.strip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and bool(rest)
    except ValueError:
        return False


def _from_lines(text: str, name: str, field: str | None) -> Iterator[Record | Problem]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            yield Problem(place, f"is not JSON ({error})")
            continue
        yield from _from_value(value, place, field)


def _from_json(text: str, name: str, field: str | None, must: bool) -> Iterator[Record | Problem]:
    try:
        value = json.loads(text)
    except ValueError as error:
        yield Problem(name, f"is not JSON ({error})") if must else Record(name, text)
        return
    if isinstance(value, list) and not _is_chat(value):
        for number, item in enumerate(value, 1):
            yield from _from_value(item, f"{name}[{number}]", field)
    else:
        yield from _from_value(value, name, field)


def _from_value(value: Any, place: str, field: str | None) -> Iterator[Record | Problem]:
    if isinstance(value, str):
        yield Record(place, value)
        return
    if isinstance(value, list) and _is_chat(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        yield Problem(place, f"must be an object or a text, is {type(value).__name__}")
        return
    id_ = next((str(value[key]) for key in ID_FIELDS if isinstance(value.get(key), str | int)), place)
    texts = _texts(value, field)
    if not texts:
        wanted = repr(field) if field else f"one of {', '.join((*TEXT_FIELDS, *CHAT_FIELDS, 'choices'))}"
        yield Problem(place, f"holds no answer: expected {wanted}, found {', '.join(value) or 'nothing'} (see --field)")
    for number, text in enumerate(texts, 1):
        name = id_ if len(texts) == 1 else f"{id_}#{number}"
        yield Record(name, _without_prompt(text, value.get("prompt")), value)


def _texts(value: dict[str, Any], field: str | None) -> list[str]:
    """Every answer that a record holds."""
    if field is not None:
        return _as_texts(value.get(field))
    for key in CHAT_FIELDS:
        if isinstance(value.get(key), list):
            answers = [_message(message) for message in value[key]]
            if any(answers):
                return [answer for answer in answers if answer]
    if isinstance(value.get("choices"), list):
        choices = [choice for choice in value["choices"] if isinstance(choice, dict)]
        return [
            text
            for choice in choices
            for text in _as_texts(_message({"role": "assistant"} | (choice.get("message") or {})) or choice.get("text"))
        ]
    for key in TEXT_FIELDS:
        if texts := _as_texts(value.get(key)):
            return texts
    return []


def _as_texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _message(message: Any) -> str:
    """What the assistant wrote in `message`, its reasoning first; empty if it isn't the assistant's."""
    if not isinstance(message, dict) or message.get("role", message.get("from")) not in ("assistant", "gpt", "model"):
        return ""
    content = message.get("content", message.get("value"))
    if isinstance(content, list):  # content parts
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return (message.get("reasoning_content") or "") + (content if isinstance(content, str) else "")


def _is_chat(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)


def _without_prompt(text: str, prompt: Any) -> str:
    """Some engines echo the prompt in the answer; a prompt may speak of tags."""
    return text[len(prompt) :] if isinstance(prompt, str) and prompt and text.startswith(prompt) else text
