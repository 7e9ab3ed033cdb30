"""What the parts of one scheduler share."""

from __future__ import annotations

from dataclasses import dataclass

from multiverse.serving.metrics import Tally
from multiverse_vllm.scheduler.blocks import BlockTable
from multiverse_vllm.scheduler.host import HostScheduler
from multiverse_vllm.scheduler.queue import Queue
from multiverse_vllm.scheduler.trees import Trees


@dataclass(frozen=True)
class State:
    """vLLM's scheduler, which parts only read, our register, vLLM's queues and blocks, and what is counted."""

    host: HostScheduler
    trees: Trees
    queue: Queue
    table: BlockTable
    tally: Tally
