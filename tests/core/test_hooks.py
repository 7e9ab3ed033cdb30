"""Rows of a hook table: what a host has, what it lacks, and what it offers itself."""

from __future__ import annotations

import sys
import types

import pytest

from multiverse.serving.hooks import Hook, missing, needed, offered

NAME = "a_host_for_test_hooks"


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType(NAME)

    class Scheduler:
        waiting: list[int]

        def step(self, budget: int) -> None:
            self.running = budget

    module.Scheduler = Scheduler  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, NAME, module)
    return module


def row(target: str, parameters: tuple[str, ...] = (), native: str = "") -> Hook:
    return Hook(f"{NAME}:{target}", parameters, True, "why", "1.0", "never", native and f"{NAME}:{native}")


def test_what_a_host_lacks_is_told_row_by_row() -> None:
    assert missing([row("Scheduler.step", ("budget",)), row("Scheduler", ("waiting", "running"))]) == []
    problems = missing([row("Scheduler.step", ("limit",)), row("Scheduler.stop"), row("Scheduler", ("queue",))])
    assert [NAME in problem for problem in problems] == [True] * 3
    assert "no limit" in problems[0]
    assert "not there" in problems[1]
    assert "no queue" in problems[2]


def test_a_row_is_needed_until_the_host_offers_what_replaces_it(host: types.ModuleType) -> None:
    rows = (row("Scheduler.step", ("budget",)), row("Scheduler.stop", native="Scheduler.fork"))
    assert needed(rows, "1.0") == rows
    assert missing(needed(rows, "1.0")) != []
    host.Scheduler.fork = None
    assert offered(f"{NAME}:Scheduler.fork")
    assert needed(rows, "1.0") == rows[:1]
    assert missing(needed(rows, "1.0")) == []


def test_nothing_is_offered_by_a_host_that_is_not_there() -> None:
    assert not offered("no_such_host.scheduler:Scheduler.fork")
