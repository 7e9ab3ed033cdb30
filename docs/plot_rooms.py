"""Draws docs/images/rooms.png: the rooms of the code and which imports which, from the imports themselves.

A room stands above all that it imports. Arrows that follow from others are left out; rooms that import each other
(by different modules) share a box.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS = ("multiverse_vllm", "multiverse_sglang")
COLOURS = {"core": "#2a9d8f", "adapter": "#d1603d", "tool": "#5b6770"}
LEGEND = {"core": "what both hosts share", "adapter": "adapters", "tool": "tools, which no adapter imports"}
CORE = ("errors", "structure", "decoding", "wire", "serving", "attention")
WIDTH, HEIGHT = 2.0, 0.62

Graph = dict[str, set[str]]


def room_of(module: str) -> str | None:
    """The room of a module; `None` for what only names others: the package itself, its command line, its client."""
    parts = module.split(".")
    if parts[0] in ADAPTERS:
        return parts[0]
    folder = ROOT.joinpath(*parts[:2])
    inside = parts[0] == "multiverse" and len(parts) > 1 and (folder.is_dir() or parts[1] == "errors")
    return parts[1] if inside else None


def imports() -> Graph:
    """By room, the rooms that it imports."""
    graph: Graph = defaultdict(set)
    for package in ("multiverse", *ADAPTERS):
        for file in (ROOT / package).rglob("*.py"):
            room = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
            for node in ast.walk(ast.parse(file.read_text())) if room else ():
                if isinstance(node, ast.ImportFrom) and node.module:
                    graph[room].add(room_of(node.module) or room)
    return {room: others - {room} for room, others in graph.items()} | {"errors": set()}


def reach(graph: Graph, room: str) -> set[str]:
    """All rooms that `room` needs, directly or not."""
    found: set[str] = set()
    todo = [room]
    while todo:
        new = graph[todo.pop()] - found
        found |= new
        todo += new
    return found


def boxes(graph: Graph) -> Graph:
    """The graph with rooms that need each other as one box, and without arrows that follow from others."""
    names = {
        room: ", ".join(sorted({room} | {other for other in reach(graph, room) if room in reach(graph, other)}))
        for room in graph
    }
    merged: Graph = defaultdict(set)
    for room, others in graph.items():
        merged[names[room]] |= {names[other] for other in others} - {names[room]}
    return {
        box: {other for other in others if not any(other in reach(merged, third) for third in others)}
        for box, others in merged.items()
    }


def level(graph: Graph, box: str) -> int:
    """Its row: a tool right below those that import it, anything else right above what it imports."""
    importers = [other for other in graph if box in graph[other]]
    if kind(box) == "tool" and importers:
        return min(level(graph, other) for other in importers) - 1
    return depth(graph, box)


def depth(graph: Graph, box: str) -> int:
    """How many boxes lie below it, one above the other."""
    return max((depth(graph, other) + 1 for other in graph[box]), default=0)


def places(graph: Graph) -> dict[str, tuple[float, float]]:
    """Centre of each box: its level, and on that near what it imports."""
    rows: dict[int, list[str]] = defaultdict(list)
    for box in graph:
        rows[level(graph, box)].append(box)
    found: dict[str, tuple[float, float]] = {}
    for number, row in sorted(rows.items()):

        def middle(box: str) -> tuple[float, str]:
            below = [found[other][0] for other in graph[box]]
            return (sum(below) / len(below) if below else 0.0), box

        for i, box in enumerate(sorted(row, key=middle)):
            found[box] = ((i - (len(row) - 1) / 2) * 1.25 * WIDTH, number * 1.25)
    return found


def kind(box: str) -> str:
    """Whose part of the code it is."""
    return "adapter" if box in ADAPTERS else "core" if box in CORE else "tool"


def main() -> None:
    """Write the picture."""
    graph = boxes(imports())
    at = places(graph)
    figure, axes = plt.subplots(figsize=(11, 7), layout="constrained")
    for box, others in graph.items():
        for other in others:
            start, end = (at[box][0], at[box][1] - HEIGHT / 2), (at[other][0], at[other][1] + HEIGHT / 2)
            axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": COLOURS[kind(box)], "alpha": 0.7})
    for box, (x, y) in at.items():
        style = {"boxstyle": "round,pad=0.02", "facecolor": COLOURS[kind(box)], "edgecolor": "white"}
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        axes.add_patch(plt.matplotlib.patches.FancyBboxPatch(corner, WIDTH, HEIGHT, **style))
        axes.text(x, y, box, ha="center", va="center", color="white", fontsize=11)
    for name, label in LEGEND.items():
        axes.scatter([], [], c=COLOURS[name], marker="s", label=label)
    axes.legend(frameon=False, loc="lower right", fontsize=11)
    axes.set_axis_off()
    axes.autoscale_view()
    target = Path(__file__).parent / "images" / "rooms.png"
    figure.savefig(target, dpi=110)
    print(f"wrote {target}: {len(graph)} boxes")


if __name__ == "__main__":
    main()
