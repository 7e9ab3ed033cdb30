"""Answers with branches, made by a controller without an engine: records as a server sends them, and their events."""

from __future__ import annotations

import itertools
from typing import Any

from toy import TOKENIZERS, Host, block, goal, host

from multiverse import Limits
from multiverse.serving.report import Observed, report
from multiverse.wire.events import Event

STEP = 0.01
"""Seconds per token."""


def write(h: Host, key: tuple[int, ...], text: str) -> None:
    h.feed(h.strand(*key), text)


def nested() -> Host:
    """Three branches; the second forks once more; the third ends long after the others. Then a second, small block."""
    h = host(limits=Limits())
    write(h, (), "ab" + goal(3))
    write(h, (0, 1), "c" + goal(2, prefix="2."))
    write(h, (0, 1, 0, 0), "aaaa" + "</Path>")
    write(h, (0, 1, 0, 1), "aaaaaaaaaa" + "</Path>")
    write(h, (0, 1), "dd</Conclusion>\n</Parallel>\nee</Path>")
    write(h, (0, 0), "f</Path>")
    write(h, (0, 2), "g" * 60 + "</Path>")
    write(h, (), "h</Conclusion>\n</Parallel>\n" + goal(2))
    write(h, (1, 0), "a</Path>")
    write(h, (1, 1), "bbb</Path>")
    write(h, (), "h</Conclusion>\n</Parallel>\nb<eos>")
    return h


def wide(width: int) -> Host:
    """One block of many branches of different lengths."""
    h = host(limits=Limits(max_branches=width))
    write(h, (), "ab" + goal(width))
    for i in range(width):
        write(h, (0, i), "abcdefgh" * (1 + 37 * i % 11) + "</Path>")
    write(h, (), "h</Conclusion>\n</Parallel>\nb<eos>")
    return h


def record(h: Host, timed: bool = True) -> dict[str, Any]:
    """`choices[i].multiverse` of the answer, with times that follow its positions, and texts."""
    tree = report(h.controller, Observed(), with_tree=True)
    for strand in tree["tree"]:
        ids, cuts = strand["token_ids"], [0, *strand["forks"], len(strand["token_ids"])]
        strand["texts"] = [TOKENIZERS["multiverse"].decode(ids[a:b]) for a, b in itertools.pairwise(cuts)]
        if timed:
            first, last = strand["positions"][0], strand["positions"][-1]
            strand["started"], strand["closed"] = round(first * STEP, 4), round((last + 1) * STEP, 4)
    tree["tree"][0]["started"] = 0.0 if timed else None
    return tree


def events(h: Host) -> list[dict[str, Any]]:
    """The events of the answer as a server sends them."""
    decode = TOKENIZERS["multiverse"].decode
    told = [
        Event(e.kind, e.key, e.label, decode(list(e.tokens)), len(e.tokens), e.branches, e.reason) for e in h.events
    ]
    return [event.to_json() for event in told]


def text_only() -> str:
    """An answer of which nothing but the text is known."""
    return "ab" + block("cd", "efgh") + "b"
