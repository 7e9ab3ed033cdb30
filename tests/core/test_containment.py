"""An exception while one request is handled ends that request, is logged once, and goes no further."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest

from multiverse.serving.containment import Guard


@dataclass(eq=False)
class Tree:
    name: str


@dataclass
class Host:
    """Ends trees; `broken` says that this fails too."""

    broken: bool = False
    ended: list[Tree] = field(default_factory=list)

    def fail(self, tree: Tree) -> None:
        self.ended.append(tree)
        if self.broken:
            raise ValueError("can't even end it")


def guard(host: Host) -> Guard[Tree]:
    return Guard(host.fail, lambda tree: tree.name, logging.getLogger("host"))


def halve(number: int) -> float:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number / 2


def test_what_a_handler_returns_is_returned_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    assert guard(host).run(Tree("a"), halve, 4, otherwise=0.0) == 2
    assert (host.ended, caplog.records) == ([], [])


def test_a_tree_whose_handler_raises_is_ended_with_its_id_and_the_traceback_in_one_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host, tree = Host(), Tree("request-7")
    assert guard(host).run(tree, halve, 3, otherwise=-1.0) == -1
    assert host.ended == [tree]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    for part in ("request-7", "3 is odd", "in halve"):
        assert part in caplog.text


def test_an_error_that_was_caught_elsewhere_is_told_with_its_own_traceback(caplog: pytest.LogCaptureFixture) -> None:
    host, tree = Host(), Tree("request-7")
    try:
        halve(5)
    except ValueError as error:
        guard(host).caught(tree, error)
    assert host.ended == [tree]
    assert "in halve" in caplog.text


def test_a_failure_to_end_a_tree_is_logged_and_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(broken=True)
    assert guard(host).run(Tree("a"), halve, 3, otherwise=0.0) == 0
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "can't even end it" in caplog.text


def test_work_that_is_about_no_tree_ends_none(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    assert guard(host).aside(halve, 3, otherwise=0.5) == 0.5
    assert host.ended == []
    assert "halve failed: ValueError('3 is odd')" in caplog.text


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_is_let_through(end: type[BaseException]) -> None:
    def leave() -> None:
        raise end

    with pytest.raises(end):
        guard(Host()).run(Tree("a"), leave, otherwise=None)
