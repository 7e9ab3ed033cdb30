"""Every reason, refusal and error of the code stands in docs/troubleshooting.md, word for word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiverse.serving.options import Options
from multiverse.structure.reasons import Reason

HOME = Path(__file__).parents[2]
TEXT = (HOME / "docs" / "troubleshooting.md").read_text()
ADAPTERS = ("multiverse_vllm", "multiverse_sglang")


def constants(node: ast.expr) -> list[str]:
    """The parts of a text that are the same whenever it is written."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return [text.strip() for text in texts]


def refusals(file: Path) -> Iterator[str]:
    """What a module of refusals names: keys of its tables of checks, and what its generators yield."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Dict):
            for key in node.keys:
                yield from constants(key) if key is not None else ()
        elif isinstance(node, ast.Yield) and node.value is not None:
            yield from constants(node.value)


def raised(folder: Path) -> Iterator[str]:
    """How the messages of every `UnsupportedHostError` of an adapter begin, up to the first value in them."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UnsupportedHostError":
                message = node.args[0]
                first = message.left if isinstance(message, ast.BinOp) else message
                found = [text for text in constants(first) if text]
                if found:
                    yield re.split(r"[:;]|\s*$", found[0])[0]


REFUSALS = [(name, text) for name in ADAPTERS for text in refusals(HOME / name / "refusals.py") if len(text) > 3]
RAISED = [
    (name, text)
    for name in ADAPTERS
    for text in raised(HOME / name)
    if not text.startswith("multiverse does not work with")  # followed by what REFUSALS has
]


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_row_with_a_remedy(reason: Reason) -> None:
    (row,) = re.findall(rf"^\| `{reason}` \|(.+)\|(.+)\|$", TEXT, re.M)
    assert all(cell.strip() for cell in row)


@pytest.mark.parametrize(("adapter", "text"), REFUSALS, ids=[text for _, text in REFUSALS])
def test_every_refusal_is_there(adapter: str, text: str) -> None:
    assert text in TEXT, f"docs/troubleshooting.md does not have what {adapter} refuses: {text}"


@pytest.mark.parametrize(("adapter", "text"), RAISED, ids=[text for _, text in RAISED])
def test_every_other_error_at_start_is_there(adapter: str, text: str) -> None:
    assert text in TEXT, f"docs/troubleshooting.md does not have what {adapter} raises: {text}"


def test_the_tables_were_found() -> None:
    """Moved or renamed code must not empty the tests above."""
    assert {name for name, _ in REFUSALS} == set(ADAPTERS)
    assert len(REFUSALS) >= 25
    assert {name for name, _ in RAISED} == set(ADAPTERS)


def test_defaults_named_on_the_page_are_those_of_the_code() -> None:
    assert f"max_depth must be at most {Options().max_depth} on this server" in TEXT
