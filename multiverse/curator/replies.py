"""From a model's reply to a typed artefact, through everything that models put around and into their JSON.

LaTeX is the difficulty: `"\\frac"` written with one backslash is a form feed to JSON. A backslash that begins a LaTeX
command is therefore kept as a backslash, whatever JSON says.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from multiverse.errors import MultiverseError
from multiverse.harness.settings import explain

T = TypeVar("T", bound=BaseModel)


class ReplyError(MultiverseError, ValueError):
    """A reply that can't be used, with the reason in words that can be sent back to the model."""


_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_ESCAPE = re.compile(r"\\(\\|[\"/]|u[0-9a-fA-F]{4}|[A-Za-z]+|.)", re.DOTALL)
# Commands whose first letter makes a JSON escape: b, f, n, r, t.
_COMMANDS = frozenset(
    """
    bar because begin beta beth bf big bigcap bigcup biggl biggr bigg bigl bigr Big bigoplus bigotimes bigtriangleup
    bigvee bigwedge binom blacksquare bmod bmatrix boldsymbol bot bowtie box boxed boxtimes breve bullet fbox flat
    footnotesize forall frac frown ne nabla natural nearrow neg neq newline newcommand nexists ngeq nleq nmid
    nolimits nonumber not notin nparallel nprec nsubseteq nsucc nu nwarrow raisebox rangle rbrace rceil rbrack re
    real relax restriction rfloor rhd rho right rightarrow rightharpoonup rightleftharpoons rm root rowcolor rule
    rVert rvert tag tan tanh tau tbinom text textbf textit textrm textsf textstyle texttt tfrac therefore theta
    thickapprox thicksim tilde times tiny to top triangle triangledown triangleleft triangleq triangleright tt
    """.split()  # noqa: SIM905  # a list of 120 words would be one word a line
)


def decode(text: str, kind: type[T], finish_reason: str | None = "stop") -> T:
    """Read the JSON in `text` as a `kind`.

    Raises:
        ReplyError: naming what is wrong: cut off, no JSON, a field that is missing or malformed.
    """
    value = _find(_THOUGHT.sub("", text))
    if value is None and finish_reason == "length":
        raise ReplyError("the reply was cut off at the token limit: answer more briefly, with the JSON object only")
    if value is None:
        raise ReplyError("the reply holds no complete JSON object: answer with one JSON object and nothing else")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ReplyError(f"the JSON object is not as asked for: {explain(error)}") from error


def _find(text: str) -> Any:
    """The JSON object in `text`: a fenced one if there is, else the first one that is complete; `None` without one."""
    for candidate in (*(match[1] for match in _FENCE.finditer(text)), text):
        repaired = _ESCAPE.sub(_keep_latex, candidate)
        start = repaired.find("{")
        while start >= 0:
            try:
                value, _ = json.JSONDecoder(strict=False).raw_decode(repaired, start)
            except json.JSONDecodeError as error:
                if error.pos >= len(repaired.rstrip()):  # it began here and was cut off; what is inside is no answer
                    break
                start = repaired.find("{", start + 1) if _is_prose(repaired, start) else -1
                continue
            if isinstance(value, dict):
                return value
            start = repaired.find("{", start + 1)
    return None


def _is_prose(text: str, start: int) -> bool:
    """Whether the brace at `start` opens no JSON object, as in a formula: then the object may come behind it."""
    return re.match(r"\{\s*[\"}]", text[start : start + 80]) is None


def _keep_latex(match: re.Match[str]) -> str:
    body = match[1]
    if body in ("\\", '"', "/") or re.fullmatch(r"u[0-9a-fA-F]{4}", body):
        return match[0]
    if body[0] in "bfnrt" and body not in _COMMANDS:
        return match[0]
    return "\\" + match[0]
