"""Where in vLLM's adapter, and in its controllers, something can go wrong about one request; and letting it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from multiverse import Controller
from multiverse.serving import request_tree
from multiverse.serving.verdict import Judge
from multiverse_vllm import hooks
from multiverse_vllm.scheduler import (
    admission,
    answers,
    blocks,
    deferral,
    demand,
    forks,
    memory,
    prefix_cache,
    queue,
    scheduler,
    steps,
    tokens,
    tree,
    trees,
)

PLACES: tuple[Any, ...] = (
    scheduler.MultiverseScheduler,
    scheduler.DecidingScheduler,
    steps.Steps,
    admission.Admission,
    deferral.Deferral,
    answers.Answers,
    forks.Forks,
    tokens.Tokens,
    memory.MemoryPressure,
    demand.Demand,
    queue.Queue,
    trees.Trees,
    prefix_cache.PrefixCache,
    prefix_cache.LayoutKeys,
    blocks.BlockTable,
    tree.Member,
    tree.RequestTree,
    request_tree.Member,
    request_tree.RequestTree,
    Controller,
    Judge,
    answers,
    admission,
    forks,
    steps,
    tokens,
)
ENTRIES = {row.target.rpartition(".")[2] for row in hooks.HOOKS if row.wrapped and hooks._SCHEDULER in row.target}
"""What vLLM calls of the scheduler: what is planted is called by these."""
LOOKUPS = {"is_alive", "holds", "_held", "held", "rank", "_victim_order", "_take", "forget", "ids", "name_of", "send"}
"""Look-ups of an attribute or two, and the removal from a dictionary: outside of any guard."""
GUARDS = {"attempt", "fail", "enroll_now", "_needed_by", "note_preemption"}
"""What runs others in a guard, or notes that one caught something."""
REACHED = {
    "admit", "enroll", "accept", "_record_decision", "_follow", "park", "unpark", "_submit", "start_draining", "start",
    "reconcile", "join", "_publish", "_dismiss", "start_root", "preempt", "own_kv", "_answer_tree", "add_record",
    "document_logprobs", "record_rows", "decide", "ended_by_vllm", "share", "splice", "keys", "__call__", "advance_to",
    "begin", "end", "enqueue", "remove", "add", "adapt_sampling", "note_start",
}  # fmt: skip
"""Those that must have raised, or this shows nothing."""

OF_JUNIORS = {"preempt", "start_root"}
"""What memory pressure calls for the most junior trees: for the last of several victims."""


class PlantedError(Exception):
    """What goes wrong."""


def functions() -> Iterator[tuple[Any, str]]:
    """Place and name of everything that something can be planted in."""
    for place in PLACES:
        for name, value in vars(place).items():
            function = value.__func__ if isinstance(value, staticmethod) else value
            if not inspect.isfunction(function) or name in ENTRIES | LOOKUPS | GUARDS or name.startswith("__init"):
                continue
            if function.__module__.startswith("multiverse"):
                yield place, name


def concerns(value: Any, victim: str) -> bool:
    """Whether an argument is of the tree of the request whose id begins with `victim`."""
    if isinstance(value, str):
        return value.startswith(f"{victim}-")
    if isinstance(value, tree.Member):
        value = value.tree
    if isinstance(value, tree.RequestTree):
        return () in value.members and value.root.request.request_id.startswith(f"{victim}-")
    if isinstance(value, Judge):
        value = value._controller
    if isinstance(value, Controller):
        return getattr(value, "victim", None) == victim
    return str(getattr(value, "request_id", "")).startswith(f"{victim}-")


def plant(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, victim: str, at: int) -> list[int]:
    """Let `name` raise at its `at`th call about `victim`. Returns a list with the number of such calls so far."""
    found = inspect.getattr_static(place, name)
    original = getattr(place, name)
    calls = [0]

    @functools.wraps(original)
    def broken(*args: Any, **kwargs: Any) -> Any:
        if any(concerns(value, victim) for value in (*args, *kwargs.values())):
            calls[0] += 1
            if calls[0] == at:
                raise PlantedError(f"{name}, call {at}")
        return original(*args, **kwargs)

    monkeypatch.setattr(place, name, staticmethod(broken) if isinstance(found, staticmethod) else broken)
    return calls


def raise_here(*_: Any, **__: Any) -> Any:
    """In place of something that fails."""
    raise PlantedError("here")
