"""Books that agree give no sentence; those that don't give one that names what leaked."""

from __future__ import annotations

import logging

import pytest

from multiverse.serving.integrity import IntegrityCheck, leftovers, ownership, repeated, strangers
from multiverse.serving.metrics import Tally


def test_books_that_agree_say_nothing() -> None:
    assert strangers("members", {"a"}, {"a", "b"}) == []
    assert repeated("the queues", ["a", "b"]) == []
    assert leftovers({"blocks": 0, "moves": 0}) == []
    assert ownership("block", {3: ["a", "b"], 4: []}, {3: 2, 5: 0}) == []


def test_what_the_host_does_not_know_is_named() -> None:
    assert strangers("members", {"a", "c", "b"}, {"b"}) == ["members that the host does not know: a, c"]


def test_what_stands_twice_is_named_once() -> None:
    assert repeated("the queues", ["a", "b", "a", "a"]) == ["more than once in the queues: a"]


def test_what_is_left_is_counted() -> None:
    assert leftovers({"blocks": 2, "moves": 0}) == ["blocks: 2 left"]


@pytest.mark.parametrize(
    ("owners", "counted", "sentence"),
    [
        ({7: ["a"]}, {7: 2}, "block 7 has 2 references and belongs to a"),
        ({7: ["b", "a"]}, {7: 1}, "block 7 has 1 references and belongs to a, b"),
        ({}, {7: 1}, "block 7 has 1 references and belongs to nobody"),
        ({7: ["a"]}, {}, "block 7 has 0 references and belongs to a"),
    ],
)
def test_memory_without_an_owner_or_with_too_many_is_named(
    owners: dict[int, list[str]], counted: dict[int, int], sentence: str
) -> None:
    assert ownership("block", owners, counted) == [sentence]


def test_long_lists_are_cut() -> None:
    assert ownership("slot", {}, dict.fromkeys(range(8), 1))[-1] == "and 3 more slots"
    assert strangers("members", set("abcdefgh"), set()) == [
        "members that the host does not know: a, b, c, d, e and 3 more"
    ]


def test_by_default_the_books_are_compared_only_when_nothing_runs() -> None:
    never, always = (IntegrityCheck(interval, Tally(), logging.getLogger("host")) for interval in (0, 3))
    assert [never.is_due() for _ in range(4)] == [False] * 4
    assert [always.is_due() for _ in range(7)] == [False, False, True, False, False, True, False]


def test_a_failure_is_told_and_counted_once_for_as_long_as_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally()
    check = IntegrityCheck(1, tally, logging.getLogger("host"))
    for problems in (["blocks: 1 left"], ["blocks: 1 left"], ["blocks: 2 left"], [], ["blocks: 2 left"]):
        check.enter(problems)
    assert tally.totals["integrity_failures"] == 3
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["1 left", "2 left", "2 left"]
