"""The rooms of the code: imports point one way, nothing imports in a circle (`docs/internals.md` has the picture)."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADAPTERS = ("multiverse_vllm", "multiverse_sglang")
BELOW = {
    "structure": {"errors"},
    "decoding": {"errors", "structure"},
    "wire": {"errors", "structure", "decoding.stream"},
    "serving": {"errors", "structure", "decoding", "wire"},
    "attention": {"errors", "structure"},
}
"""What each room of the core may import beside itself."""
ABOVE = ("viewer", "harness", "oracle", "training", "evaluation", "curator", "stress", "models", "commands", "cli")
"""What no adapter imports."""


def name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name(file): file for package in ("multiverse", *ADAPTERS) for file in (ROOT / package).rglob("*.py")}


def imported(module: str) -> set[str]:
    """The modules of ours that `module` imports anywhere in its file."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found & MODULES.keys() - {module}


def below(module: str, rooms: set[str]) -> bool:
    return any(f"{module}.".startswith(f"multiverse.{room}.") for room in rooms)


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_what_is_below_it(room: str) -> None:
    inside = [module for module in MODULES if below(module, {room})]
    assert inside
    for module in inside:
        assert [other for other in imported(module) if not below(other, BELOW[room] | {room})] == [], module


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_imports_the_core_and_not_what_is_built_on_it(adapter: str) -> None:
    other_adapter = next(name for name in ADAPTERS if name != adapter)
    for module in MODULES:
        if module.split(".")[0] == adapter:
            wrong = [m for m in imported(module) if below(m, set(ABOVE)) or m.split(".")[0] == other_adapter]
            assert wrong == [], module


@pytest.mark.parametrize("package", ["multiverse", *ADAPTERS])
def test_nothing_imports_in_a_circle(package: str) -> None:
    graph = {module: imported(module) for module in MODULES if module.split(".")[0] == package}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
