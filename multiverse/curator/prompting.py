"""Rendering the prompts: one Jinja2 template per stage, and one for the system message.

Long parts that stages share come first, so that endpoints with a prefix cache read a chain once.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from multiverse.curator.sentences import one_line

PROMPTS = Path(__file__).parent / "prompts"

# No escaping: prompts are plain text, and formulas are full of <, > and &.
_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PROMPTS),
    autoescape=False,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["one_line"] = one_line


def messages(template: str, **values: Any) -> list[dict[str, str]]:
    """The system message that all stages share, and the user message of `template`."""
    texts = {"system": _render("system.j2"), "user": _render(f"{template}.j2", **values)}
    return [{"role": role, "content": text} for role, text in texts.items()]


def feedback(reasons: list[str]) -> str:
    """What is said about a reply that was refused."""
    return _render("feedback.j2", reasons=reasons)


def _render(template: str, **values: Any) -> str:
    return _environment.get_template(template).render(values).strip()


@cache
def fingerprint() -> str:
    """Changes when a template does."""
    texts = [path.read_bytes() for path in sorted(PROMPTS.glob("*.j2"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()
