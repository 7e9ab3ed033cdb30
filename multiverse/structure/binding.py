"""A dialect bound to a tokenizer: tags and headers become token ids (SEMANTICS section 3).

Everything after binding works on ids alone; no text is decoded while a model generates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol

from multiverse.errors import BindingError
from multiverse.structure.dialects import Dialect, Tag, registry
from multiverse.structure.lexer import LABEL_SCAN, read_label
from multiverse.structure.tree import Token

_SPACE = "Ġ▁Ċĉč \t\r\n"
"""How vocabularies of byte-level and sentence-piece tokenizers spell white space."""

_LABEL_TOKEN = re.compile(f"[{_SPACE}]*[0-9.]*(?:[:.)].*)?[{_SPACE}]*", re.DOTALL)


class Tokenizer(Protocol):
    """What a binding needs of a Hugging Face tokenizer; both the fast and the slow ones have it."""

    unk_token_id: int | None
    eos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...
    def decode(self, token_ids: Any) -> Any: ...
    def get_vocab(self) -> dict[str, int]: ...


class Binding:
    """A dialect's tags, headers and separators as ids of one tokenizer.

    Attributes:
        dialect: the dialect.
        tags: tag of each tag id.
        ids: id of each tag the dialect has.
        goal_separator, path_separator, last_separator: ids of what stands before, between and behind the paths.
        forced_close: ids with which the engine ends a branch that did not write its path-close: that tag is the last.
        eos: ids that end a turn.

    Raises:
        BindingError: if a tag is not exactly one token, naming every such tag and what it was encoded to.
    """

    def __init__(self, dialect: Dialect, tokenizer: Tokenizer, eos: Iterable[int] | None = None) -> None:
        self.dialect = dialect
        self.ids = _tag_ids(dialect, tokenizer)
        self.tags = {token: tag for tag, token in self.ids.items()}
        self._tokenizer = tokenizer
        self.goal_separator = self._after(Tag.GOAL_CLOSE, dialect.separator_at("goal"))
        self.path_separator = self._after(Tag.PATH_CLOSE, dialect.separator_at("path"))
        self.last_separator = self._after(Tag.PATH_CLOSE, dialect.separator_at("last"))
        self.forced_close = self._after(Tag.PATH_OPEN, dialect.forced_close + dialect.tags[Tag.PATH_CLOSE])
        default = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.eos = frozenset(default if eos is None else eos)
        self._headers: dict[str, tuple[int, ...]] = {}
        self._characters: dict[int, frozenset[str]] = {}

    def tag(self, token: Token) -> Tag | None:
        """The tag that id `token` is, or `None` for text."""
        return self.tags.get(token)  # type: ignore[arg-type]  # a token of another kind has no tag

    def path_header(self, label: str) -> tuple[int, ...]:
        """Path-open and the header for `label`: what the engine writes to open a branch."""
        if label not in self._headers:
            text = self.dialect.path_header.format(label=label)
            self._headers[label] = (self.ids[Tag.PATH_OPEN], *self._after(Tag.PATH_OPEN, text))
        return self._headers[label]

    @cached_property
    def conclusion_header(self) -> tuple[int, ...]:
        """What the engine writes at the join: conclusion-open and its header; else block-close; or nothing."""
        if Tag.CONCLUSION_OPEN in self.ids:
            header = self._after(Tag.CONCLUSION_OPEN, self.dialect.conclusion_header)
            return (self.ids[Tag.CONCLUSION_OPEN], *header)
        closes = self.dialect.engine_closes and Tag.BLOCK_CLOSE in self.ids
        return (self.ids[Tag.BLOCK_CLOSE],) if closes else ()

    def separator_after(self, last: bool) -> tuple[int, ...]:
        """What follows a path, which may be the last one of its block."""
        return self.last_separator if last else self.path_separator

    def goal(self, labels: Sequence[str]) -> tuple[int, ...]:
        """A block up to its goal-close, with outlines that hold only these labels."""
        tags, separator = self.dialect.tags, self.dialect.separator
        closing = separator + tags[Tag.OUTLINE_CLOSE] if Tag.OUTLINE_CLOSE in tags else ""
        outlines = [f"{tags[Tag.OUTLINE_OPEN]}{separator}{label}:{closing}" for label in labels]
        opening = [tags[Tag.BLOCK_OPEN]] if Tag.BLOCK_OPEN in tags else []
        text = separator.join([*opening, tags[Tag.GOAL_OPEN], *outlines, tags[Tag.GOAL_CLOSE]])
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _after(self, tag: Tag, text: str) -> tuple[int, ...]:
        """Ids of `text` where it follows `tag`; some tokenizers put a space before text that stands alone."""
        ids = self._tokenizer.encode(self.dialect.tags[tag] + text, add_special_tokens=False)
        return tuple(ids[1:])

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of `text`, which holds no tag."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def text(self, tokens: Sequence[int]) -> str:
        """What `tokens` say. Slow; nothing on the way of an ordinary token needs it."""
        return str(self._tokenizer.decode(list(tokens)))

    def characters(self, token: int) -> frozenset[str]:
        """The characters that `token` adds to a text; `INCOMPLETE` if it has part of one. Decoded once."""
        if token not in self._characters:
            self._characters[token] = frozenset(self.text([token, token]))  # the first may lose a space before it
        return self._characters[token]

    def label(self, tokens: Sequence[Token], start: int) -> str | None:
        """The label that the text from `start` on begins with, by table look-up; see `read_label`."""
        text = ""
        for token in tokens[start : start + LABEL_SCAN]:
            piece = self.label_pieces.get(token)  # type: ignore[arg-type]
            if piece is None:
                return read_label(text, whole=token in self.tags)
            text += piece
        whole = len(tokens) <= start + LABEL_SCAN
        return read_label(text if whole else text.rstrip("."), whole)  # what is cut off may be a longer number

    def separates(self, token: Token) -> bool:
        """Whether `token` is white space."""
        return self.label_pieces.get(token, "x").isspace()  # type: ignore[arg-type]

    def ends_turn(self, token: Token) -> bool:
        """Whether `token` ends a turn of a chat."""
        return token in self.eos

    @cached_property
    def label_pieces(self) -> dict[int, str]:
        """Text of every token that a label or a separator can consist of, or that begins with what follows a label."""
        found = [token for text, token in self._tokenizer.get_vocab().items() if _LABEL_TOKEN.fullmatch(text)]
        return {token: self._tokenizer.decode([token]) for token in found if token not in self.tags}


def bind(dialect: Dialect | str, tokenizer: Tokenizer, eos: Iterable[int] | None = None) -> Binding:
    """Bind a dialect (or the one of that name or TOML file) to a tokenizer.

    Args:
        dialect: a `Dialect`, a registered name, or the path of a TOML file.
        tokenizer: any Hugging Face tokenizer.
        eos: ids that end a turn; the tokenizer's own if not given.

    Raises:
        DialectError: if the name is not known.
        BindingError: if a tag is not exactly one token of the tokenizer.
    """
    return Binding(registry.get(dialect) if isinstance(dialect, str) else dialect, tokenizer, eos)


def detect(tokenizer: Tokenizer) -> Dialect:
    """The dialect whose tags are all tokens of `tokenizer`; of several the one with the most tags.

    Raises:
        BindingError: if there is none, saying for each dialect which tags were missing.
    """
    problems = {dialect: _problems(dialect, tokenizer) for dialect in registry.all()}
    fitting = [dialect for dialect, found in problems.items() if not found]
    if not fitting:
        lines = [f"  {dialect.name}: {', '.join(found)}" for dialect, found in problems.items()]
        raise BindingError(
            "the tokenizer knows the tags of no dialect. Not one token each are\n"
            + "\n".join(lines)
            + "\nServe a model trained with such tags, or add them before training with multiverse.add_tags."
        )
    return max(fitting, key=lambda dialect: len(dialect.tags))


def _tag_ids(dialect: Dialect, tokenizer: Tokenizer) -> dict[Tag, int]:
    problems = _problems(dialect, tokenizer)
    if problems:
        described = "\n".join(f"  {text} -> {_encoded(tokenizer, text)}" for text in problems)
        raise BindingError(
            f"dialect {dialect.name!r} does not fit this tokenizer: each tag must be one token, but\n{described}\n"
            "Name another dialect, or add the tags before training with multiverse.add_tags."
        )
    return {tag: tokenizer.encode(text, add_special_tokens=False)[0] for tag, text in dialect.tags.items()}


def _problems(dialect: Dialect, tokenizer: Tokenizer) -> list[str]:
    """The tags of `dialect` that are not one token of `tokenizer`."""

    def unfit(text: str) -> bool:
        ids = tokenizer.encode(text, add_special_tokens=False)
        return len(ids) != 1 or ids[0] == tokenizer.unk_token_id

    return [text for text in dialect.tags.values() if unfit(text)]


def _encoded(tokenizer: Tokenizer, text: str) -> str:
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = [tokenizer.decode([token]) for token in ids]
    return f"{len(ids)} tokens {pieces} = {ids}" if len(ids) != 1 else f"the unknown token {ids[0]}"
