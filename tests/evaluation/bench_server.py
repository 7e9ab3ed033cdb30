"""A server whose every step takes the same time, and the command that measures it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from program import run

from multiverse.evaluation.bench.hosts import words_of
from multiverse.evaluation.bench.points import Point
from multiverse.evaluation.bench.run import RESULTS
from multiverse.evaluation.bench.workloads import workload
from multiverse.models import TINY
from multiverse.serving.options import Options

WAYS = (("splice", 50, 2.0), ("client", 100, 2.5), ("sequential", 100, 3.0))

WORDS = words_of(str(TINY))

STEP = 0.0004
"""Seconds that a position takes on the program's server."""


class Server:
    """Knows completions: plain ones, and those of a shape. Decodes a position in `STEP`, prefills in no time."""

    def __init__(self, shapes: str = "accept") -> None:
        self.options = Options(shapes=shapes)
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.forks, self.step, self.busy = 0, STEP, 0.0
        self._lock = threading.Lock()

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "tiny", "root": str(TINY)}]}
        lines = [
            f'multiverse:{n}_seconds_{what}{{engine="0"}} {self.forks * value}'
            for n, each in (("fork", 0.002), ("join", 0.003))
            for what, value in (("sum", each), ("count", 1))
        ]
        lines += [
            f'multiverse:step_time_error_{what}{{engine="0"}} {value}' for what, value in (("sum", 3), ("count", 60))
        ]
        return (200, "\n".join(lines)) if path == "/metrics" else (404, {})

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path != "/v1/completions":
            return 404, {}
        given = body.get("multiverse")
        try:
            shape = self.options.for_request(given).shape
        except Exception as error:
            return 400, {"error": {"message": str(error)}}
        tokens, figures, steps = body["max_tokens"], None, body["max_tokens"]
        if shape is not None:
            load = workload("", shape, WORDS.binding, len(body["prompt"]))
            tokens, steps = load.tokens + load.goals, load.critical_path
            figures = {"tokens": tokens, "branches": load.branches, "fallbacks": {}}
        with self._lock:
            self.bodies.append(body)
            self.forks += shape is not None
            self.busy += self.step * steps
            self.asked["shape" if shape else "disabled" if given else "plain"] += 1
        usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1} | (
            {"multiverse": figures} if figures else {}
        )
        choice = {"index": 0, "text": "", "finish_reason": "length", "token_ids": [20] * tokens}
        answer = {"id": "1", "object": "text_completion", "created": 1, "model": "tiny", "usage": usage}
        if body.get("stream"):
            return 200, self._events(answer, choice, steps)
        time.sleep(STEP * steps)
        return 200, answer | {"choices": [choice]}

    def _events(self, answer: dict[str, Any], choice: dict[str, Any], steps: int) -> Iterator[str]:
        """The first token, all the others together, and the usage."""
        yield _event(answer | {"choices": [choice], "usage": None})
        time.sleep(self.step * (steps - 1))
        yield _event(answer | {"choices": [choice], "usage": None})
        yield _event(answer | {"choices": []})
        yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


SMALL = ("--repeats", "2", "--tokens", "120,240", "--widths", "2,4", "--batches", "1,4", "--lengths", "8,32")


def bench(*arguments: object) -> tuple[int, str, str]:
    done = run(*arguments, command="bench")
    return done.returncode, done.stdout, done.stderr


def points(output: Path, experiment: str) -> list[Point]:
    data = json.loads((output / RESULTS).read_text())
    return [Point(**point) for point in data["points"] if point["experiment"] == experiment]
