"""SGLang: installed is not active, and active refuses what it does not know."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

pytest.importorskip("sglang", reason="the table belongs to SGLang's adapter")

from sglang_forks import python

import multiverse_sglang
from multiverse import Controller, parse_ids
from multiverse.decoding.splice import kv_order
from multiverse.models import TINY
from multiverse_sglang import hooks

UNTOUCHED = """
import os
os.environ.pop("MULTIVERSE", None)
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.plugins import load_plugins
before = dict(vars(Scheduler))
load_plugins()
assert before == dict(vars(Scheduler))
"""
NOT_APPLIED = """
from sglang.srt.plugins.hook_registry import HookRegistry
import multiverse_sglang
apply = HookRegistry._apply_target
def failing(target, found):
    if target.endswith("abort_request"):
        raise RuntimeError("as SGLang would only log")
    return apply(target, found)
HookRegistry._apply_target = failing
multiverse_sglang.enable()
"""


def test_without_the_switch_nothing_of_sglang_is_changed() -> None:
    result = python(UNTOUCHED)
    assert result.returncode == 0, result.stderr


def test_a_hook_that_sglang_fails_to_apply_ends_the_start() -> None:
    result = python(NOT_APPLIED)
    assert result.returncode == 1
    assert "SGLang did not apply the hooks of multiverse" in result.stderr
    assert "Scheduler.abort_request" in result.stderr


def test_this_sglang_has_all_that_the_table_asks_for() -> None:
    assert hooks.check() == []


def test_another_sglang_is_refused_with_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *rest = hooks.HOOKS
    changed = (
        replace(first, target="sglang.srt.managers.scheduler:Scheduler.gone"),
        replace(second, parameters=("unheard_of",)),
        *rest,
    )
    monkeypatch.setattr(hooks, "HOOKS", changed)
    monkeypatch.setattr(hooks, "host_version", lambda: "9.9.9")
    monkeypatch.setenv("MULTIVERSE", "1")
    with pytest.raises(SystemExit) as refused:
        multiverse_sglang.register()
    for part in ("SGLang 9.9.9 was never tested", "Scheduler.gone is not there", "has no unheard_of"):
        assert part in str(refused.value)


def test_a_radix_key_is_the_tokens_up_to_the_first_fork_and_never_after() -> None:
    """I4: what was computed causally is found by everybody, what was not only by the same layout."""
    from transformers import AutoTokenizer

    from multiverse import bind
    from multiverse_sglang.scheduler.prefix_cache import layout_key

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    binding = bind("multiverse", tokenizer)
    outlines = "<Outline>\n1: A\n</Outline>\n<Outline>\n2: B\n</Outline>\n"
    paths = "<Path>\n1: A\n</Path>\n<Path>\n2: B\n</Path>\n<Conclusion>\n7\n</Conclusion>\n</Parallel>"
    ids = tokenizer.encode(f"A<Parallel>\n<Goal>\n{outlines}</Goal>\n{paths}")
    (block,) = parse_ids(ids, binding).walk()
    controller = Controller(binding, prompt=ids)
    key = layout_key(kv_order(controller, controller.root, 1).entries)
    fork = block.paths[0].start
    assert key[:fork] == array("q", ids[:fork])
    assert all(value < 0 for value in key[fork:])
    first, second = block.paths
    places = {key[at] ^ ids[at] for at in range(fork, len(ids))}  # what is the same for tokens of one place
    assert len(places) == 3
    assert len({key[at] ^ ids[at] for at in (first.start, second.start, second.end)}) == 3
    assert min(abs(one - other) for one in places for other in places if one != other) > 1 << 32
