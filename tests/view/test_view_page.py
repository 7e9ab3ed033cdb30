"""The page of `multiverse view` in a real browser: what it draws is the answer, and it can be used and read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from answers import STEP, nested, record, text_only, wide
from playwright.sync_api import Locator, Page

from multiverse.cli import main

Box = dict[str, float]


def opened(page: Page, folder: Path, source: str, name: str = "answer.json") -> None:
    """Let the command draw `source` and open what it wrote."""
    (folder / name).write_text(source)
    assert main(["view", str(folder / name), "-o", str(folder / "page.html")]) == 0
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder / "page.html").as_uri())
    assert asked == [(folder / "page.html").as_uri()], "the page needs no network"


@pytest.fixture
def answer(page: Page, tmp_path: Path) -> Page:
    opened(page, tmp_path, json.dumps({"choices": [{"index": 0, "multiverse": record(nested())}]}))
    return page


def lane(page: Page, name: str) -> Locator:
    return page.locator(".lane", has=page.get_by_text(name, exact=False)).first


def box(locator: Locator) -> Box:
    found = locator.bounding_box()
    assert found is not None
    return dict(found)


def names(page: Page) -> list[str]:
    return [text[2:] for text in page.locator(".lane .name").all_text_contents()]


def picked(page: Page) -> str:
    return str(page.locator("#text h2").text_content())


def test_there_is_a_lane_for_every_branch_below_its_parent(answer: Page) -> None:
    expected = ["answer", "branch 1", "branch 2", "branch 2.1", "branch 2.2", "branch 3"]
    expected += ["branch 1 (block 2)", "branch 2 (block 2)"]
    assert names(answer) == expected
    indents = [box(each)["x"] for each in answer.locator(".lane .name").all()]
    padding = [
        each.evaluate("e => parseFloat(getComputedStyle(e).paddingLeft)") for each in answer.locator(".name").all()
    ]
    assert len(set(indents)) == 1
    assert padding[3] > padding[2] > padding[0]


def test_branches_of_a_block_start_together_and_the_longest_is_on_the_critical_path(answer: Page) -> None:
    starts = [box(answer.locator(".lane").nth(row).locator(".bar").first)["x"] for row in (1, 2, 5)]
    assert max(starts) - min(starts) < 1
    critical = [
        i for i, each in enumerate(answer.locator(".lane").all()) if "critical" in (each.get_attribute("class") or "")
    ]
    assert critical == [0, 5, 7]
    colours = {
        row: answer.locator(".lane").nth(row).locator(".bar").first.evaluate("e => getComputedStyle(e).backgroundColor")
        for row in (1, 5)
    }
    assert colours[1] != colours[5]


def test_a_branch_waits_from_its_end_to_the_join(answer: Page) -> None:
    first, longest = answer.locator(".lane").nth(1), answer.locator(".lane").nth(5)
    wait = box(first.locator(".wait"))
    assert wait["x"] == pytest.approx(
        box(first.locator(".bar").last)["x"] + box(first.locator(".bar").last)["width"], abs=2
    )
    end = box(longest.locator(".bar").last)
    position = end["width"] / len(record(nested())["tree"][5]["positions"])  # the separator behind it overlaps the join
    assert wait["x"] + wait["width"] == pytest.approx(end["x"] + end["width"] - position, abs=2)


def test_the_axis_shows_positions_or_time(answer: Page) -> None:
    marks = [float(text) for text in answer.locator("#axis span").all_text_contents()]
    assert marks == sorted(marks)
    last = max(position for strand in record(nested())["tree"] for position in strand["positions"])
    assert marks[-1] <= last + 1
    answer.keyboard.press("t")
    assert answer.locator('[data-axis="time"]').get_attribute("aria-pressed") == "true"
    times = answer.locator("#axis span").all_text_contents()
    assert all(text.endswith(" s") for text in times)
    assert 0.7 * (last + 1) * STEP < float(times[-1].removesuffix(" s")) <= (last + 1) * STEP
    answer.keyboard.press("p")
    assert answer.locator('[data-axis="position"]').get_attribute("aria-pressed") == "true"


def test_the_keyboard_leads_through_the_branches(answer: Page) -> None:
    walked = [picked(answer)]
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowLeft", "End", "Home"):
        answer.keyboard.press(key)
        walked.append(picked(answer))
    assert walked == [
        *("answer", "branch 1", "branch 2", "branch 2.1", "branch 2", "answer", "branch 2 (block 2)", "answer"),
    ]
    assert answer.locator(".lane.picked").count() == 1


def test_a_click_shows_the_text_of_a_branch_and_its_branches_lead_on(answer: Page) -> None:
    answer.locator(".lane").nth(2).click()
    text = str(answer.locator("#text").text_content())
    assert "c<Parallel>" in text
    assert "waited" in text
    answer.locator("#text .into").nth(1).click()
    assert picked(answer) == "branch 2.2"
    assert "aaaaaaaaaa" in str(answer.locator("#text").text_content())


def test_it_follows_the_theme_of_the_machine_and_a_key_changes_it(answer: Page) -> None:
    def lightness() -> float:
        rgb = answer.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        return float(sum(rgb[:3]) / 765)

    assert lightness() > 0.9
    answer.keyboard.press("d")
    assert lightness() < 0.2
    answer.emulate_media(color_scheme="dark")
    answer.reload()
    assert lightness() < 0.2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_hundred_branches_can_be_read(page: Page, tmp_path: Path, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    opened(page, tmp_path, json.dumps(record(wide(100))))
    assert names(page) == ["answer", *(f"branch {i}" for i in range(1, 101))]
    labels = [box(each) for each in page.locator(".lane .name").all()]
    assert all(label["height"] >= 18 for label in labels)
    assert all(below["y"] >= above["y"] + above["height"] - 0.5 for above, below in itertools.pairwise(labels))
    assert all(
        bar["x"] >= labels[0]["x"] + labels[0]["width"] - 1 for bar in map(box, page.locator(".bar").all()[1:-3])
    )
    page.keyboard.press("End")
    last, chart = box(page.locator(".lane").last), box(page.locator("#chart"))
    assert last["y"] + last["height"] <= chart["y"] + chart["height"] + 1, "the last branch is scrolled into sight"
    axis = box(page.locator("#axis"))
    assert axis["y"] == pytest.approx(chart["y"], abs=1), "the axis stays in sight"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_text_has_positions_but_no_times(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, text_only(), "answer.txt")
    assert names(page) == ["answer", "branch 1", "branch 2"]
    assert page.locator('[data-axis="time"]').is_disabled()
    page.keyboard.press("t")
    assert page.locator('[data-axis="position"]').get_attribute("aria-pressed") == "true"


def test_it_fits_a_telephone(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 780})
    opened(page, tmp_path, json.dumps(record(nested())))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (
        box(page.locator("#text"))["y"] >= box(page.locator("#chart"))["y"] + box(page.locator("#chart"))["height"] - 1
    )


def test_text_that_looks_like_a_page_stays_text(page: Page, tmp_path: Path) -> None:
    tree = record(nested())
    tree["tree"][0]["texts"][0] = "</script><img src=x onerror=document.title='broken'>"
    opened(page, tmp_path, json.dumps(tree))
    assert page.title() == "answer.json"
    assert "<img src=x" in str(page.locator("#text").text_content())


def test_a_page_that_can_not_be_written_is_said_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "answer.txt").write_text(text_only())
    target = tmp_path / "answer.txt" / "page.html"
    assert main(["view", str(tmp_path / "answer.txt"), "-o", str(target)]) == 2
    assert f"{target}: can't be written" in capsys.readouterr().err
