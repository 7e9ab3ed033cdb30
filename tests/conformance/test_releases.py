"""What stands in place of a host's function takes what only some releases pass it, whichever is installed here."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from multiverse.serving.hooks import resolve

HOST = "vllm" if find_spec("vllm") is not None else "sglang"
hooks = import_module(f"multiverse_{HOST}.hooks")
PINNED: dict[str, dict[str, dict[str, Any]]] = json.loads(hooks.RELEASES.read_text())


def replacements() -> Iterator[tuple[str, Callable[..., Any]]]:
    """By target of the hook table, the functions of ours that hosts call by that name."""
    if HOST == "sglang":
        from multiverse_sglang.wrappers import WRAPPERS

        yield from ((target, ours) for target, (_, ours) in WRAPPERS.items())
        return
    import vllm_host  # noqa: F401  # which switches the plugin on

    from multiverse_vllm.scheduler.scheduler import MultiverseScheduler

    overridden = vars(MultiverseScheduler)
    for hook in hooks.table():
        name = hook.target.rpartition(".")[2]
        ours = overridden.get(name) if ":Scheduler." in hook.target or ":AsyncScheduler." in hook.target else None
        found = ours or resolve(hook.target)
        if inspect.isfunction(found) and found.__code__.co_filename.find("multiverse_vllm") >= 0:
            yield hook.target, found


def some_releases_have(target: str) -> set[str]:
    """The parameters of a function that not all releases know by name."""
    named = [set(targets[target]["names"]) for targets in PINNED.values() if target in targets]
    return set.union(*named) - set.intersection(*named) if named else set()


CHANGED = [(target, ours) for target, ours in replacements() if some_releases_have(target)]


@pytest.mark.parametrize(("target", "ours"), [pytest.param(*each, id=each[0]) for each in CHANGED])
def test_a_replacement_takes_what_only_some_releases_pass(target: str, ours: Callable[..., Any]) -> None:
    parameters = inspect.signature(ours, follow_wrapped=False).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    passes_all_on = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
    assert passes_all_on or some_releases_have(target) <= set(parameters)


def test_some_are_changed() -> None:
    """Else nothing was tested above."""
    assert CHANGED
