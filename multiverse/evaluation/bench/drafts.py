"""Speculative decoding: tokens per second by draft length and number of rows, and the table that follows from them.

Answers are the model's own: how many drafts are accepted depends on what is said, and vLLM refuses beside drafts what
shapes are forced with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from multiverse.evaluation.bench.metrics import Drafted, drafted
from multiverse.evaluation.bench.points import Point, races, spread
from multiverse.evaluation.bench.race import Sizes
from multiverse.evaluation.bench.traffic import Traffic
from multiverse.serving.drafts import DraftLengths, best_draft_lengths

NAME = "drafts"
_EACH = 4
"""Answers that a row gives one after the other while it is measured, on the average."""
_ONE_ROW = {"max_branches": 1}
"""A block goes on sequentially: a request is one row."""


@dataclass(frozen=True)
class Window:
    """A time in which as many answers were under way as there were rows, and what the server counted in it."""

    seconds: float
    counted: Drafted


def draft_lengths(most: int) -> list[int]:
    """Those that are tried on a server that drafts up to `most` tokens: none, 2, 4, 8 and so on, and `most`."""
    return [0, *(2**power for power in range(1, most.bit_length()) if 2**power < most), most]


async def drafts(traffic: Traffic, questions: Iterable[str], sizes: Sizes) -> AsyncIterator[list[Point]]:
    """(k) Each draft length in turn at each number of rows; every time with other questions.

    Args:
        questions: without end. A drafter that remembers would know an answer that was given before.

    Raises:
        RunError: if the server does not draft.
    """
    lengths, asked = draft_lengths(len(drafted(traffic.url).accepted)), iter(questions)
    await _window(traffic, asked, 2, lengths[-1], sizes)  # once for nothing
    for rows in sizes.batches:
        found: dict[int, list[Window]] = {length: [] for length in lengths}
        for repeat in range(sizes.repeats):
            for length in lengths[repeat % len(lengths) :] + lengths[: repeat % len(lengths)]:
                found[length].append(await _window(traffic, asked, rows, length, sizes))
        yield [_point(rows, length, windows) for length, windows in found.items()]


async def _window(traffic: Traffic, questions: Iterator[str], rows: int, length: int, sizes: Sizes) -> Window:
    """Until one row has nothing more to say, and its last question is the last that there is for any."""
    left = islice(questions, _EACH * rows)

    async def answer() -> None:
        for question in left:
            await traffic.answered(question, sizes.tokens[0], {"drafts": length, **_ONE_ROW})

    before, start = drafted(traffic.url), traffic.clock()
    tasks = [asyncio.create_task(answer()) for _ in range(rows)]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        found = Window(traffic.clock() - start, drafted(traffic.url).since(before))
        for task in ended:
            task.result()  # or why there is none
        return found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _point(rows: int, length: int, windows: Sequence[Window]) -> Point:
    """One token of each row."""
    counts = [window.counted for window in windows]
    seconds = [rows * window.seconds / window.counted.tokens for window in windows]
    tried = sum(count.drafts for count in counts)
    accepted = (
        [sum(places) / tried for places in zip(*(count.accepted for count in counts), strict=True)] if tried else []
    )
    more = {
        "step_ms": [1000 * window.seconds / window.counted.steps for window in windows],
        "tokens_per_step": [count.tokens / count.steps / rows for count in counts],
        "accepted": accepted[:length],
    }
    return Point(NAME, str(length), {"rows": rows}, rows, 0, 1, 1, seconds, more=more)


def rates(points: Sequence[Point]) -> dict[int, dict[int, float]]:
    """By rows and draft length: tokens per second, the median."""
    return {
        race.case["rows"]: {int(way): point.batch / spread(point.seconds).median for way, point in race.ways.items()}
        for race in races(points, NAME)
    }


def measured(points: Sequence[Point]) -> DraftLengths:
    """What to give to `--multiverse-drafts`."""
    return best_draft_lengths(rates(points))
