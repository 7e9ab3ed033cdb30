"""Speed of the engine-neutral core: tokens through the controller, layout, parsing. No torch.

Prints a table and writes benchmarks/results/core.json. Run with `make bench`.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from multiverse import (
    Binding,
    Controller,
    Limits,
    Start,
    Tag,
    get_dialect,
    layout,
    parse_ids,
    parse_text,
    to_transcript,
)

REPEATS = 5
RESULTS = Path(__file__).parent / "results" / "core.json"


class Letters:
    """A tokenizer with one token per tag and one per character: enough for the controller."""

    unk_token_id = None
    eos_token_id = 0

    def __init__(self, tags: list[str]) -> None:
        texts = ["<eos>", *tags, *map(chr, range(128))]
        self._ids = {text: i for i, text in enumerate(texts)}
        self._texts = texts
        self._tags = tags

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:  # noqa: ARG002
        ids: list[int] = []
        while text:
            piece = next((tag for tag in self._tags if text.startswith(tag)), text[0])
            ids.append(self._ids[piece])
            text = text[len(piece) :]
        return ids

    def decode(self, token_ids: list[int]) -> str:
        return "".join(self._texts[i] for i in token_ids)

    def get_vocab(self) -> dict[str, int]:
        return self._ids


DIALECT = get_dialect("multiverse")
TOKENIZER = Letters(list(DIALECT.tags.values()))
BINDING = Binding(DIALECT, TOKENIZER)


def goal(width: int) -> list[int]:
    """The tokens of a block up to goal-close."""
    outlines = "".join(f"<Outline>\n{i}: x\n</Outline>\n" for i in range(1, width + 1))
    return TOKENIZER.encode(f"<Parallel>\n<Goal>\n{outlines}</Goal>")


def decode(tokens: int, width: int, length: int) -> Controller:
    """Drive a controller through blocks of `width` paths of `length` tokens until `tokens` were accepted."""
    controller = Controller(BINDING, Limits(max_branches=width))
    root, accepted = controller.root, 0
    ids = BINDING.ids
    head, tail = goal(width), [ids[Tag.CONCLUSION_CLOSE], ids[Tag.BLOCK_CLOSE]]
    text = TOKENIZER.encode("a")[0]
    while accepted < tokens:
        actions = [action for token in head for action in controller.accept(root, token)]
        for child in [action.strand for action in actions if isinstance(action, Start)]:
            for _ in range(length):
                controller.accept(child, text)
            controller.accept(child, ids[Tag.PATH_CLOSE])
            accepted += length + 1
        for token in tail:
            controller.accept(root, token)
        accepted += len(head) + len(tail)
    return controller


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Median and spread of the CPU seconds of `work`."""
    work()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def main() -> None:
    """Measure, print, write."""
    wide = to_transcript(decode(128_000, 1000, 118))
    ids = wide.ids
    text = TOKENIZER.decode(ids)
    million = 1_000_000
    cases: dict[str, tuple[Callable[[], object], float]] = {
        "controller, 1 M tokens, 6 paths a block": (lambda: decode(million, 6, 120), 2.0),
        "controller, 2 M tokens, 6 paths a block": (lambda: decode(2 * million, 6, 120), 4.0),
        f"layout with positions, {len(wide):,} tokens, 1,000 paths": (lambda: layout(wide).positions, 0.5),
        f"parse ids, {len(wide):,} tokens, 1,000 paths": (lambda: parse_ids(ids, BINDING), 0.0),
        f"parse text, {len(text):,} characters, 1,000 paths": (lambda: parse_text(text), 0.0),
    }
    table = Table("case", "median CPU s", "least", "most", "required")
    results = []
    for name, (work, required) in cases.items():
        seconds = measure(work)
        results.append({"case": name, "required": required or None, **seconds})
        row = (f"{seconds[key]:.3f}" for key in ("median", "least", "most"))
        table.add_row(name, *row, f"{required:g}" if required else "-")
    Console().print(table)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "repeats": REPEATS}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"command": "make bench", **machine, "results": results}, indent=1) + "\n")
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
