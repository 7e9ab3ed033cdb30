"""A roofline: how long a decoding step takes, given the widths and the KV that its sequences read."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from multiverse.errors import RunError
from multiverse.harness.settings import Settings, check_settings, read_yaml

Array: TypeAlias = NDArray[np.float64]
Kind = TypeVar("Kind", bound=Settings)


class Machine(Settings):
    """One accelerator, or several that work as one.

    Attributes:
        bandwidth: of its memory, bytes per second.
        flops: dense, of the precision that is computed in, per second.
        memory: bytes.
        memory_efficiency, compute_efficiency: shares of both that a server reaches.
        overhead: seconds of every step that are neither.
        per_sequence: seconds more for every token that a step computes: sampling, scheduling, answering.
        max_sequences: branches that a step holds; more take turns.
    """

    name: str
    bandwidth: float = Field(gt=0)
    flops: float = Field(gt=0)
    memory: float = Field(gt=0)
    memory_efficiency: float = Field(0.8, gt=0, le=1)
    compute_efficiency: float = Field(0.5, gt=0, le=1)
    overhead: float = Field(0.0, ge=0)
    per_sequence: float = Field(0.0, ge=0)
    max_sequences: int = Field(256, ge=1)


class Model(Settings):
    """A model with full attention.

    Attributes:
        parameters: that a step reads and multiplies with.
        weight_bytes, kv_bytes: per parameter, and per value of the KV cache.
    """

    name: str
    parameters: float = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    weight_bytes: float = Field(2.0, gt=0)
    kv_bytes: float = Field(2.0, gt=0)

    @property
    def kv_per_token(self) -> float:
        """Bytes of KV that one token has, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes


class Roofline:
    """Times of a model on a machine.

    Raises:
        RunError: if the weights don't fit.
    """

    def __init__(self, machine: Machine, model: Model) -> None:
        self.machine, self.model = machine, model
        self._bandwidth = machine.bandwidth * machine.memory_efficiency
        self._flops = machine.flops * machine.compute_efficiency
        self._weights = model.parameters * model.weight_bytes
        free = 0.9 * machine.memory - self._weights
        if free <= 0:
            raise RunError(f"{model.name} ({self._weights / 1e9:.0f} GB) does not fit into {machine.name}")
        self.kv_tokens = free / model.kv_per_token

    def step(self, width: Array, read: Array, loaded: Array | None = None, rows: Array | None = None) -> Array:
        """Seconds of decoding steps.

        Args:
            width: tokens that each step computes.
            read: tokens that each step attends to, summed over its sequences.
            loaded: tokens whose KV each step gets from memory; `read` if not given, since a prefix that branches share
                is loaded for each of them, unless attention knows better (`multiverse.attention.shared_prefix`).
            rows: sequences of each step; `width` if not given, since each computes one token, unless some are drafted.
        """
        attention = 4 * self.model.layers * self.model.heads * self.model.head_dim * read
        compute = (2 * self.model.parameters * width + attention) / self._flops
        turns = np.maximum(1.0, (width if rows is None else rows) / self.machine.max_sequences)
        memory = (
            self._weights * turns + self.model.kv_per_token * (read if loaded is None else loaded)
        ) / self._bandwidth
        return np.maximum(compute, memory) + self.machine.overhead * turns + self.machine.per_sequence * width

    def prefill(self, tokens: float) -> float:
        """Seconds to compute a prompt."""
        return 2 * self.model.parameters * tokens / self._flops


def load(kind: type[Kind], folder: str, given: str) -> Kind:
    """A machine or model of the package by name, or from a YAML file.

    Raises:
        RunError: naming what is there, or the field that is wrong.
    """
    if given.endswith((".yaml", ".yml")):
        return check_settings(read_yaml(Path(given)), kind, given)
    files: Any = resources.files("multiverse.evaluation") / "data" / folder
    known = sorted(file.name.removesuffix(".yaml") for file in files.iterdir())
    if given not in known:
        raise RunError(f"{given!r} is unknown: it must be one of {', '.join(known)}, or a .yaml file")
    with resources.as_file(files / f"{given}.yaml") as path:
        return check_settings(read_yaml(path), kind, given)
