"""Dialects: how a family of models writes its blocks, as data (SEMANTICS section 3).

A dialect is a small TOML file. Three come with the package; a user adds one with `load_dialect("mine.toml")` or with
an entry point in the group `multiverse.structure.dialects` that names a `Dialect` or a function returning one.
This module knows no tokenizer: see `multiverse.structure.binding`.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from multiverse.errors import DialectError

logger = logging.getLogger(__name__)

BUILT_IN = Path(__file__).parent / "data" / "dialects"
ENTRY_POINTS = "multiverse.dialects"

Join = Literal["splice", "prefill"]


class Tag(IntEnum):
    """What a tag means, whatever a dialect calls it."""

    BLOCK_OPEN = 0
    BLOCK_CLOSE = 1
    GOAL_OPEN = 2
    GOAL_CLOSE = 3
    OUTLINE_OPEN = 4
    OUTLINE_CLOSE = 5
    PATH_OPEN = 6
    PATH_CLOSE = 7
    CONCLUSION_OPEN = 8
    CONCLUSION_CLOSE = 9

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


TagPair = tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """The tags of one family of models and what the engine has to write itself.

    Each pair of tags is `(open, close)`. `block` and `conclusion` may be empty, and the closing tags of `outline` and
    `conclusion` may be left out.

    Attributes:
        name: by which it is found in the registry.
        block: tags around a whole block; empty if the goal opens it.
        goal: tags around the outlines. The closing one makes the engine fork.
        outline: tags around one outline.
        path: tags around one path.
        conclusion: tags around the conclusion; empty if the text simply goes on after the last path.
        path_header: what the engine writes after path-open; `{label}` is the outline's label.
        conclusion_header: what the engine writes after conclusion-open.
        separator: what stands between two tags. Of the four places where an engine writes it, three may differ:
        goal_separator: before the first path. `None` for `separator`, as of the other two.
        path_separator: between two paths.
        last_separator: behind the last path.
        forced_close: what comes before path-close where the engine has to write it, since the branch ended otherwise.
        engine_closes: without a conclusion, whether the engine writes block-close at the join; else the model does.
        nesting: whether a path or a conclusion may hold a block.
        join: `splice` (the branches' KV is reused) or `prefill` (the joined text is prefilled causally).

    Raises:
        DialectError: if a field is missing, malformed or contradicts another.
    """

    name: str
    goal: TagPair
    outline: TagPair
    path: TagPair
    block: TagPair = ()
    conclusion: TagPair = ()
    path_header: str = "\n{label}:"
    conclusion_header: str = ""
    separator: str = "\n"
    goal_separator: str | None = None
    path_separator: str | None = None
    last_separator: str | None = None
    forced_close: str = ""
    engine_closes: bool = True
    nesting: bool = True
    join: Join = "splice"

    def __post_init__(self) -> None:
        self._check_pair("goal", lengths=(2,))
        self._check_pair("path", lengths=(2,))
        self._check_pair("outline", lengths=(1, 2))
        self._check_pair("block", lengths=(0, 2))
        self._check_pair("conclusion", lengths=(0, 1, 2))
        texts = list(self.tags.values())
        if duplicates := sorted({text for text in texts if texts.count(text) > 1}):
            raise DialectError(f"dialect {self.name!r}: the same text is given to two tags: {', '.join(duplicates)}")
        if self.join not in get_args(Join):
            raise DialectError(f"dialect {self.name!r}: join is {self.join!r}, allowed are {', '.join(get_args(Join))}")
        if self.join == "splice" and not self.block and not self.conclusion:
            raise DialectError(f"dialect {self.name!r}: join 'splice' needs a conclusion or block tags to go on with")
        if self.join == "splice" and not self.conclusion and not self.engine_closes:
            raise DialectError(f"dialect {self.name!r}: engine_closes can be false only where join is 'prefill'")
        self._check_header()

    def _check_pair(self, field: str, lengths: tuple[int, ...]) -> None:
        pair = getattr(self, field)
        if not isinstance(pair, (tuple, list)) or not all(isinstance(text, str) and text.strip() for text in pair):
            raise DialectError(f"dialect {self.name!r}: {field} must be a list of non-empty tags, got {pair!r}")
        if len(pair) not in lengths:
            allowed = " or ".join(map(str, lengths))
            raise DialectError(f"dialect {self.name!r}: {field} needs {allowed} tags, got {len(pair)}: {list(pair)}")
        object.__setattr__(self, field, tuple(pair))

    def _check_header(self) -> None:
        try:
            self.path_header.format(label="1")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise DialectError(
                f"dialect {self.name!r}: path_header {self.path_header!r} may only use {{label}}"
            ) from error

    def separator_at(self, place: Literal["goal", "path", "last"]) -> str:
        """The separator behind the goal, a path or the last path."""
        own: str | None = getattr(self, f"{place}_separator")
        return self.separator if own is None else own

    @cached_property
    def tags(self) -> dict[Tag, str]:
        """The text of every tag this dialect has."""
        pairs = {
            Tag.BLOCK_OPEN: self.block,
            Tag.GOAL_OPEN: self.goal,
            Tag.OUTLINE_OPEN: self.outline,
            Tag.PATH_OPEN: self.path,
            Tag.CONCLUSION_OPEN: self.conclusion,
        }
        return {Tag(kind + i): text for kind, pair in pairs.items() for i, text in enumerate(pair)}


def dialect_from_dict(data: Mapping[str, Any], source: str = "dictionary") -> Dialect:
    """Make a dialect from the content of its TOML file.

    Raises:
        DialectError: naming `source` and the unknown or missing field.
    """
    known = {field.name for field in fields(Dialect)}
    if unknown := sorted(set(data) - known):
        raise DialectError(f"{source}: unknown field {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    if missing := [name for name in ("name", "goal", "outline", "path") if name not in data]:
        raise DialectError(f"{source}: field {', '.join(missing)} is missing")
    texts = ("name", "path_header", "conclusion_header", "join", "forced_close")
    separators = ("separator", "goal_separator", "path_separator", "last_separator")
    types = dict.fromkeys((*texts, *separators), str) | dict.fromkeys(("nesting", "engine_closes"), bool)
    for name, kind in types.items():
        if name in data and not isinstance(data[name], kind):
            raise DialectError(f"{source}: {name} must be of type {kind.__name__}, got {data[name]!r}")
    return Dialect(**data)


class Registry:
    """Dialects by name: the built-in ones, those of entry points, and those a program adds."""

    def __init__(self) -> None:
        self._dialects: dict[str, Dialect] = {}
        self._scanned = False

    def add(self, dialect: Dialect) -> Dialect:
        """Make `dialect` known under its name; a later one of the same name replaces it."""
        self._dialects[dialect.name] = dialect
        return dialect

    def get(self, name: str) -> Dialect:
        """The dialect called `name`, or the one in the TOML file at that path.

        Raises:
            DialectError: if there is neither, with the names that exist.
        """
        if name.endswith(".toml"):
            return load_dialect(name)
        self._scan()
        if name not in self._dialects:
            raise DialectError(
                f"unknown dialect {name!r}; known are {', '.join(self._dialects)}; "
                "a path ending in .toml loads your own (docs/concepts.md)"
            )
        return self._dialects[name]

    def all(self) -> list[Dialect]:
        """Every known dialect, built-in ones first."""
        self._scan()
        return list(self._dialects.values())

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        added, self._dialects = self._dialects, {}
        for name in ("multiverse", "npr", "threadweaver"):
            self.add(_read(BUILT_IN / f"{name}.toml"))
        for point in metadata.entry_points(group=ENTRY_POINTS):
            try:
                found = point.load()
                self.add(found if isinstance(found, Dialect) else found())
            except Exception as error:  # somebody else's package must not stop ours
                logger.warning("dialect entry point %s was skipped: %s", point.name, error)
        self._dialects.update(added)


registry = Registry()


def get_dialect(name: str) -> Dialect:
    """Look a dialect up by name or TOML path: `registry.get`."""
    return registry.get(name)


def load_dialect(path: str | Path) -> Dialect:
    """Read a dialect from a TOML file and add it to the registry.

    Raises:
        DialectError: if the file can't be read or is no dialect; the message names the file and the field.
    """
    return registry.add(_read(Path(path)))


def _read(path: Path) -> Dialect:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DialectError(f"{path}: can't be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DialectError(f"{path}: not a TOML file ({error})") from error
    return dialect_from_dict(data, source=str(path))
