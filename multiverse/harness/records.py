"""Reading answers of a model from files: plain text, JSON, JSON lines, chats, responses of APIs, results of batches.

Nothing is lost silently: what can't be read becomes a `Problem` with its place, and reading goes on behind it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiverse.errors import RunError
from multiverse.harness.messages import ASSISTANT, MessageError, chat, content, is_chat, role, spoken
from multiverse.harness.rows import SUFFIXES, Problem, Row, looks_like_lines, rows_of_json, rows_of_lines

TEXT_FIELDS = ("response", "completion", "output", "generated_text", "generation", "prediction", "text", "content")
"""Where a record keeps the model's answer, in this order of preference."""

TRAINING_FIELDS = ("parallel", "sequential")
"""Where our own training data does: the parallel form if there is one."""

CHAT_FIELDS = ("messages", "conversations", "conversation")
ID_FIELDS = ("id", "uid", "custom_id", "question_id", "problem_id", "doc_id", "idx")

__all__ = ["Problem", "Record", "read_records", "readable"]


@dataclass(frozen=True)
class Record:
    """One answer: an identifier, the text that the model wrote, without the prompt, and what else the record holds."""

    id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_records(source: str, field: str | None = None) -> Iterator[Record | Problem]:
    """Read the answers in a file.

    Args:
        source: a path; `-` is standard input. `.json` and `.jsonl` say what is inside; else it is found out.
        field: the key of a record that holds the answer, or a path of keys and numbers with dots between; found out
            if not given.
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
    for row in _rows(data, text, Path(source).suffix.lower(), name):
        yield from [row] if isinstance(row, Problem | Record) else _from_value(row, field)


def readable(source: str) -> list[Record]:
    """The answers in a file all of which can be read.

    Raises:
        RunError: if one can't, naming it.
    """
    found = []
    for record in read_records(source):
        if isinstance(record, Problem):
            raise RunError(str(record))
        found.append(record)
    return found


def _rows(data: bytes, text: str, suffix: str, name: str) -> Iterator[Row | Record | Problem]:
    """The rows of a file; a text that is no JSON is one answer."""
    if suffix == ".jsonl" or (suffix not in SUFFIXES and looks_like_lines(data)):
        yield from rows_of_lines(io.BytesIO(data), name)
        return
    if suffix != ".json" and text.lstrip()[:1] not in ("{", "["):
        yield Record(name, text)
        return
    rows = list(rows_of_json(data, name))
    if is_chat(turns := [row.value for row in rows if isinstance(row, Row)]) and len(turns) == len(rows):
        yield Row(name, {"messages": turns})
    elif suffix != ".json" and len(rows) == 1 and isinstance(rows[0], Problem):
        yield Record(name, text)
    else:
        yield from rows


def _from_value(row: Row, field: str | None) -> Iterator[Record | Problem]:
    value, place = row.value, row.place
    if isinstance(value, str):
        yield Record(place, value)
        return
    if is_chat(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        yield Problem(place, f"must be an object or a text, is {type(value).__name__}")
        return
    try:
        texts = _texts(value) if field is None else _as_texts(_at(value, field.split(".")), field)
    except MessageError as error:
        yield Problem(place, str(error))
        return
    if not texts:
        wanted = repr(field) if field else f"one of {', '.join((*TEXT_FIELDS, *CHAT_FIELDS, 'choices'))}"
        yield Problem(place, f"holds no answer: expected {wanted}, found {', '.join(value) or 'nothing'} (see --field)")
    id_ = next((str(value[key]) for key in ID_FIELDS if isinstance(value.get(key), str | int)), place)
    for number, text in enumerate(texts, 1):
        name = id_ if len(texts) == 1 else f"{id_}#{number}"
        yield Record(name, _without_prompt(text, value.get("prompt")), value)


def _at(value: Any, path: list[str]) -> Any:
    """What stands at `path`; of a list the item of that number, or what stands there in each of its items."""
    if isinstance(value, dict) and (key := ".".join(path)) in value:
        return value[key]
    for done, step in enumerate(path):
        if isinstance(value, list) and not step.isdigit():
            found = [_at(item, path[done:]) for item in value]
            return [text for item in found for text in (item if isinstance(item, list) else [item])]
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _texts(value: dict[str, Any]) -> list[str]:
    """Every answer that a record holds.

    Raises:
        MessageError: if it holds one that can't be read.
    """
    for key in TRAINING_FIELDS:
        if isinstance(value.get(key), str):
            return [value[key]]
    for key in CHAT_FIELDS:
        if is_chat(value.get(key)) and (answers := _assistant(chat(value[key]))):
            return answers
    choices = value.get("choices")
    if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        return [_choice(choice) for choice in choices]
    if role(value) in ASSISTANT:  # a message by itself, as Anthropic's API answers
        return [spoken(value)]
    if value.get("object") == "response" and isinstance(value.get("output"), list):
        return [_response(value["output"])]
    if (inner := _inside(value)) is not None:
        return _texts(inner)
    if "resps" in value:
        return _samples(value["resps"])
    return next((texts for key in TEXT_FIELDS if (texts := _as_texts(value.get(key), key))), [])


def _assistant(turns: list[dict[str, Any]]) -> list[str]:
    answers = []
    for number, turn in enumerate(turns, 1):
        if role(turn) in ASSISTANT:
            try:
                answers.append(spoken(turn))
            except MessageError as error:
                raise MessageError(f"turn {number}: {error}") from error
    return answers


def _choice(choice: dict[str, Any]) -> str:
    message = choice.get("message")
    if not isinstance(message, dict) and "text" not in choice:
        raise MessageError("holds a choice without an answer: neither 'message' nor 'text'")
    return spoken(message) if isinstance(message, dict) else content({"content": choice["text"]})


def _response(items: list[Any]) -> str:
    """The text of the items that OpenAI's Responses API answers with: thoughts and messages, in their order."""
    text = ""
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else type(item).__name__
        if kind not in ("reasoning", "message"):
            raise MessageError(f"holds an item of kind {kind!r}, which can't be read as text")
        text += content(item) or content({"content": item.get("summary")})
    return text


def _inside(value: dict[str, Any]) -> dict[str, Any] | None:
    """The response in a line of a batch's results, OpenAI's or Anthropic's.

    Raises:
        MessageError: if it is an error.
    """
    if value.get("error") and not value.get("response"):
        raise MessageError(f"holds an error: {value['error']!s:.200}")
    for outer, inner in (("response", "body"), ("result", "message")):
        found = value.get(outer)
        if isinstance(found, dict):
            if isinstance(found.get(inner), dict):
                return dict(found[inner])
            raise MessageError(f"{outer!r} holds no {inner!r}: {found!s:.200}")
    return None


def _samples(resps: Any) -> list[str]:
    """The answers in a sample that `lm-eval` logged: per request a list of repeats."""
    texts = [text for request in resps for text in (request if isinstance(request, list) else [request])]
    if not all(isinstance(text, str) for text in texts):
        raise MessageError("'resps' holds no texts: only generated answers can be read")
    return texts


def _as_texts(value: Any, key: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not any(isinstance(text, str) for text in values):
        return []
    for number, text in enumerate(values, 1):
        if not isinstance(text, str):
            raise MessageError(f"{key!r}: item {number} is no text but {type(text).__name__}")
    return values


def _without_prompt(text: str, prompt: Any) -> str:
    """Some engines echo the prompt in the answer; a prompt may speak of tags."""
    return text[len(prompt) :] if isinstance(prompt, str) and prompt and text.startswith(prompt) else text
