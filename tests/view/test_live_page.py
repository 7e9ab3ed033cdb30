"""`multiverse view --live` in a real browser, asking a server that is a program: branches are seen while they grow."""

from __future__ import annotations

from typing import Any

import pytest
from answers import record
from playwright.sync_api import Page, expect
from upstream import REFUSAL, Upstream, number_of

from multiverse.viewer.live import LiveServer


def test_branches_are_seen_while_they_grow(page: Page, live: LiveServer, upstream: Upstream) -> None:
    upstream.pause = number_of(upstream, "close", [0, 0])
    page.goto(live.url)
    assert page.locator("#question").input_value() == "How much is it?"
    page.locator("#ask").click()
    expect(page.locator(".card")).to_have_count(5)  # three, and two within the second
    expect(page.locator(".card .card")).to_have_count(2)
    expect(page.locator(".card.closed")).to_have_count(3)
    expect(page.locator("#state")).to_contain_text("decoding")
    expect(page.locator(".card.running").first).to_be_in_viewport()
    assert page.locator(".lane span").all_text_contents()[:4] == [
        *("answer", "branch 1", "branch 2", "\u00a0\u00a0branch 2.1"),
    ]
    upstream.go.set()
    expect(page.locator("#state")).to_contain_text("done in")
    expect(page.locator(".card")).to_have_count(7)
    assert page.locator("#figures").text_content() is not None
    figures = record(upstream.answer)
    assert f"tokens {figures['tokens']}" in str(page.locator("#figures").text_content())
    shown = "".join(page.locator("#answer").all_text_contents())
    assert "gggggg" in shown
    assert upstream.asked[0]["multiverse"] == {"stream": "events", "return_tree": True}


def test_lanes_stand_in_document_order_and_end_where_the_positions_do(
    page: Page, live: LiveServer, upstream: Upstream
) -> None:
    page.goto(live.url)
    page.locator("#ask").click()
    expect(page.locator("#state")).to_contain_text("done in")
    names = [name.strip() for name in page.locator(".lane span").all_text_contents()]
    labels = [f"branch {s['label']}" if s["key"] else "answer" for s in record(upstream.answer)["tree"]]
    assert names == [*labels[:-2], *(f"{label} (2)" for label in labels[-2:])]
    _, between, after = bars(page, 0)  # before, between and after two blocks
    ends = [bar["x"] + bar["width"] for row in (1, 2, 5) for bar in bars(page, row)]
    assert between["x"] == pytest.approx(max(ends), abs=1)
    assert after["x"] == pytest.approx(max(bar["x"] + bar["width"] for row in (6, 7) for bar in bars(page, row)), abs=1)


def bars(page: Page, row: int) -> list[Any]:
    """Where the pieces of a lane are drawn."""
    return [each.bounding_box() for each in page.locator(".lane").nth(row).locator(".bar").all()]


def test_the_finished_answer_opens_as_a_timeline(page: Page, live: LiveServer) -> None:
    page.goto(live.url)
    page.locator("#ask").click()
    expect(page.locator("#page")).to_be_enabled()
    with page.expect_popup() as popup:
        page.locator("#page").click()
    timeline = popup.value
    expect(timeline.locator(".lane")).to_have_count(8)
    timeline.close()


def test_an_answer_can_be_stopped_and_the_server_is_told(page: Page, live: LiveServer, upstream: Upstream) -> None:
    upstream.pause = number_of(upstream, "close", [0, 0])
    page.goto(live.url)
    page.locator("#ask").click()
    expect(page.locator(".card")).to_have_count(5)
    page.keyboard.press("Escape")
    expect(page.locator("#state")).to_contain_text("stopped")
    assert upstream.left.wait(10), "the server still streams to nobody"
    upstream.pause = None
    page.locator("#ask").click()
    expect(page.locator("#state")).to_contain_text("done in")


def test_what_the_server_refuses_is_shown_in_its_words(page: Page, live: LiveServer) -> None:
    page.goto(live.url)
    page.locator("#question").fill("refuse")
    page.locator("#ask").click()
    expect(page.locator("#state")).to_have_text(REFUSAL)


def test_a_server_without_events_is_named(page: Page, live: LiveServer, upstream: Upstream) -> None:
    upstream.with_events = False
    page.goto(live.url)
    page.locator("#ask").click()
    expect(page.locator("#state")).to_contain_text("was it started with --plugin multiverse?")
