"""What a model wrote into a variable of a program."""

from __future__ import annotations

from typing import Any

from sglang.lang.interpreter import ProgramState

from multiverse.structure.dialects import Dialect
from multiverse.structure.parser import parse_text
from multiverse.structure.tree import Transcript
from multiverse.wire.responses import FIELD


def transcript(state: ProgramState, name: str, dialect: Dialect | str = "multiverse") -> Transcript:
    """The tree of what a model wrote into the variable `name` of `state`.

    Raises:
        DialectError: if `dialect` is a name that is not known.
    """
    return parse_text(state[name], dialect)


def record(state: ProgramState, name: str) -> dict[str, Any] | None:
    """The server's record of the request that filled the variable `name`; `None` if it held no block."""
    found: dict[str, Any] | None = (state.get_meta_info(name) or {}).get(FIELD)
    return found
