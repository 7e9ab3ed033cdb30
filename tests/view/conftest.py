"""A real Chromium without a window. It is part of what is tested, so it has to be there: tools/setup browser."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright
from upstream import Upstream

from multiverse.viewer.live import LiveServer

SHOTS = os.environ.get("MULTIVERSE_SCREENSHOTS")
"""A directory for pictures to look at."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "no Chromium here: run tools/setup browser"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of 1280 by 800; a test that leaves an error in its console fails."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if _is_wrong(message) else None)
    page.set_default_timeout(10_000)
    yield page
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{request.node.name.replace('/', '-')}.png")
    page.close()
    assert wrong == []


def _is_wrong(message: ConsoleMessage) -> bool:
    """Chromium itself notes every refusal of a server, which a page may well show to its user."""
    return message.type == "error" and "responded with a status of 400" not in message.text


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.go.set()
        server.shutdown()


@pytest.fixture
def live(upstream: Upstream) -> Iterator[LiveServer]:
    with LiveServer(upstream.url, 0, "How much is it?") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
