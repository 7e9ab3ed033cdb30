"""docs/api.md and docs/serving.md name every option, every field of an answer and every kind of event."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from toy import ToyTokenizer

from multiverse import Controller, Limits, bind
from multiverse.decoding.budgets import LARGEST, FinishReason
from multiverse.serving.field import BRANCH_SAMPLING
from multiverse.serving.options import _REQUEST_FIELDS, FLAGS, flag
from multiverse.serving.report import Observed, report
from multiverse.wire.events import Event, Kind
from multiverse.wire.responses import _MAXIMA, _SUMS

DOCS = Path(__file__).parents[2] / "docs"
API = (DOCS / "api.md").read_text()


def rows(heading: str, until: str) -> set[str]:
    """Names in the first column of the tables between two headings."""
    part = API.split(f"\n{heading}\n", 1)[1].split(f"\n{until}", 1)[0]
    cells = re.findall(r"^\| (.+?) \|", part, re.M)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_field_of_a_request_has_a_row() -> None:
    assert rows("## The field of a request", "### What") == set(_REQUEST_FIELDS)
    bounds = dict(BRANCH_SAMPLING) | {"presence_penalty": (), "frequency_penalty": (-2, 2)}  # told together
    for name, between in bounds.items():
        assert f"`{name}`" + (f" ({between[0]} to {between[1]}" if between else ",") in API
    assert f"integer from 1 to {LARGEST}" in API


def test_every_figure_has_a_row() -> None:
    assert rows("## Figures", "## The record") == {*_SUMS, *_MAXIMA, "parallel_degree", "fallbacks"}


def test_every_field_of_a_strand_has_a_row() -> None:
    controller = Controller(bind("multiverse", ToyTokenizer("multiverse")), limits=Limits(max_tokens=9))
    (strand,) = report(controller, Observed(held={(): 1.0}, logprobs={}, weights={}), with_tree=True)["tree"]
    assert rows("## The record and its tree", "## Streams") == {*strand, "texts"}


def test_every_kind_of_event_and_every_reason_to_end_is_there() -> None:
    assert rows("## Streams", "## Prompts") == set(get_args(Kind))
    assert {field.name for field in fields(Event)} <= set(re.findall(r"[`\"](\w+)[`\"]", API))
    assert all(f"`{reason}`" in API for reason in FinishReason)


@pytest.mark.parametrize("name", FLAGS)
def test_every_option_of_a_server_is_in_the_table_of_the_serving_page(name: str) -> None:
    text = (DOCS / "serving.md").read_text()
    assert re.search(rf"^\|.*`{name}`.*\| yes \|", text, re.M), flag(name)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md", *(DOCS.parent / "examples").glob("*.md")]:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            file = (page.parent / target) if target else page
            assert file.exists(), f"{page.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page.name} links to {target}#{anchor}"
