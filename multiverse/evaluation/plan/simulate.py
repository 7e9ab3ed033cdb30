"""Many servers at once, as rows of arrays: continuous batching, one bin at a time, each row with its own clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multiverse.errors import RunError
from multiverse.evaluation.plan.machine import Array, Roofline
from multiverse.evaluation.plan.shapes import Binned


@dataclass(frozen=True)
class Load:
    """What comes to the servers.

    Attributes:
        slots: `[rows]`, requests that a server works on at once, at most.
        requests: that each server answers.
        rate: arrivals per second of each server (Poisson); `None`: there is always a next one.
        cached: prompts are in the prefix cache and need not be computed.
    """

    slots: NDArray[np.int64]
    requests: int
    rate: Array | None = None
    cached: bool = False


@dataclass(frozen=True)
class Served:
    """What came of it, `[rows, requests]`.

    Attributes:
        latency: seconds from arrival to the last token.
        tokens: of the answers.
        seconds: `[rows]`, until the last answer.
    """

    latency: Array
    tokens: Array
    seconds: Array

    @property
    def per_token(self) -> Array:
        """`[rows]`: median seconds per token of an answer."""
        return np.asarray(np.median(self.latency / self.tokens, axis=1))

    @property
    def throughput(self) -> Array:
        """`[rows]`: tokens per second."""
        return np.asarray(self.tokens.sum(axis=1) / self.seconds)


class _Servers:
    """The state of all rows. A slot that is free has shape -1."""

    def __init__(self, shapes: Binned, roofline: Roofline, load: Load, seed: int) -> None:
        self.shapes, self.roofline, self.load = shapes, roofline, load
        rng = np.random.default_rng(seed)
        rows, slots = len(load.slots), int(load.slots.max())
        self.order = rng.integers(len(shapes.bins), size=(rows, load.requests))
        self.arrival = np.zeros((rows, load.requests))
        if load.rate is not None:
            self.arrival = rng.exponential(1 / load.rate[:, None], (rows, load.requests)).cumsum(axis=1)
        self.shape = np.full((rows, slots), -1)
        self.bin: NDArray[np.int64] = np.zeros((rows, slots), int)
        self.request: NDArray[np.int64] = np.zeros((rows, slots), int)
        self.usable = np.arange(slots)[None, :] < load.slots[:, None]
        self.next: NDArray[np.int64] = np.zeros(rows, int)
        self.clock: Array = np.zeros(rows)
        self.kv: Array = np.zeros(rows)
        self.start, self.finish = np.zeros((rows, load.requests)), np.zeros((rows, load.requests))

    def admit(self) -> None:
        """Let requests in, first come, first served, while there are slots and KV for them."""
        rows = np.arange(len(self.clock))
        while True:
            head = np.minimum(self.next, self.load.requests - 1)
            shape, due = self.order[rows, head], self.arrival[rows, head]
            idle = (self.shape < 0).all(axis=1)
            waits = (self.next < self.load.requests) & (idle & (due > self.clock))
            self.clock = np.where(waits, due, self.clock)  # nothing to do until then
            free = (self.shape < 0) & self.usable
            fits = self.kv + self.shapes.kv[shape] <= self.roofline.kv_tokens
            let = np.nonzero((self.next < self.load.requests) & (due <= self.clock) & free.any(axis=1) & fits)[0]
            if not len(let):
                return
            slot = free[let].argmax(axis=1)
            self.shape[let, slot], self.bin[let, slot], self.request[let, slot] = shape[let], 0, head[let]
            self.start[let, head[let]] = self.clock[let] if self.load.rate is None else due[let]
            self.kv[let] += self.shapes.kv[shape[let]]
            self.next[let] += 1
            if not self.load.cached:
                self.clock[let] += self.roofline.prefill(1.0) * self.shapes.prompt[shape[let]]

    def step(self) -> bool:
        """Advance every row by one bin. False when all is done."""
        busy = self.shape >= 0
        if not busy.any():
            return False
        width = np.where(busy, self.shapes.width[self.shape, self.bin], 0).sum(axis=1)
        read = np.where(busy, self.shapes.read[self.shape, self.bin], 0).sum(axis=1)
        seconds = np.where(busy.any(axis=1), self.roofline.step(width, read), 0)
        self.clock += seconds * self.shapes.steps
        self.bin += busy
        row, slot = np.nonzero(busy & (self.bin >= self.shapes.bins[self.shape]))
        shape = self.shape[row, slot]
        unused = (self.shapes.steps - self.shapes.last[shape]) * seconds[row]
        self.finish[row, self.request[row, slot]] = self.clock[row] - unused
        np.subtract.at(self.kv, row, self.shapes.kv[shape])
        self.shape[row, slot], self.bin[row, slot] = -1, 0
        return True


def simulate(shapes: Binned, roofline: Roofline, load: Load, seed: int = 0) -> Served:
    """Serve until every request is answered.

    Raises:
        RunError: if an answer alone needs more KV than the machine holds.
    """
    if shapes.kv.max() > roofline.kv_tokens:
        raise RunError(
            f"an answer of {shapes.kv.max():,.0f} tokens needs more KV than {roofline.machine.name} holds beside"
            f" {roofline.model.name} ({roofline.kv_tokens:,.0f} tokens)"
        )
    servers = _Servers(shapes, roofline, load, seed)
    servers.admit()
    while servers.step():
        servers.admit()
    latency = servers.finish - servers.start
    return Served(latency, shapes.tokens[servers.order], servers.finish.max(axis=1))
