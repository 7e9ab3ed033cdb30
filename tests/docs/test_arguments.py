"""docs/arguments.md is made from its data, which names what there is: messages, tests, and each argument once."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KNOWN = {file.stem: tomllib.loads(file.read_text()) for file in sorted((ROOT / "docs/arguments").glob("*.toml"))}


def test_the_page_is_made_from_the_data() -> None:
    made = subprocess.run([sys.executable, ROOT / "tools/arguments", "--check"], check=False, capture_output=True)
    assert made.returncode == 0, made.stderr.decode()


@pytest.mark.parametrize("host", ["vllm", "sglang"])
def test_a_refusal_is_one_that_troubleshooting_has(host: str) -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    assert [message for message in set(KNOWN[host]["refused"].values()) if f"`{message}`" not in text] == []


@pytest.mark.parametrize("host", ["vllm", "sglang"])
def test_what_was_tried_stands_in_the_test_that_is_named(host: str) -> None:
    for name, said in KNOWN[host]["works"].items():
        file, _, words = said.partition(": ")
        assert words in (ROOT / file).read_text(), f"{file} does not have {words!r}, said of {name}"


@pytest.mark.parametrize("host", ["vllm", "sglang"])
def test_no_argument_is_said_to_be_two_things(host: str) -> None:
    """A name of its own goes before the family that it is in."""
    groups: list[Any] = [KNOWN[host]["refused"], KNOWN[host]["works"], *KNOWN[host]["apart"].values()]
    named = [name for group in groups for name in group]
    assert sorted(name for name in set(named) if named.count(name) > 1) == []
