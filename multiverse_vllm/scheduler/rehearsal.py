"""One fork and one splice when an engine starts: signatures, which the hook table checks, don't show changed meaning.

A block with a single branch, whose separators advance, is a causal sequence: what it yields has to be what vLLM itself
says about the same tokens. With its positions shifted it has to be something else. Branch and prefix end within KV
blocks, so that blocks are shared, copied, adopted and moved.
"""

from __future__ import annotations

import copy
import functools
import logging
from typing import Any

from vllm import SamplingParams
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.core import EngineCore
from vllm.v1.request import Request

from multiverse.decoding.budgets import FinishReason
from multiverse.decoding.controller import Controller
from multiverse.decoding.goal import Goal
from multiverse.decoding.strand import Strand
from multiverse.errors import UnsupportedHostError
from multiverse.serving.options import Options
from multiverse.structure.binding import Binding
from multiverse.structure.dialects import Tag
from multiverse_vllm.channels import OPTIONS
from multiverse_vllm.scheduler.scheduler import MultiverseScheduler

logger = logging.getLogger("vllm.multiverse")

SAMPLED = 3
"""Tokens that are sampled in the branch, and again after the join."""
SHIFT = 16
"""Positions by which the branch of the second run begins too early."""
TOLERANCE = 0.5
"""Largest difference in log-probability, in nats. 16-bit models round to about 0.1; a wrong block costs several."""


class _Rehearsal(Controller):
    """Forks into a single branch, `shift` positions early, and ends branch and root after a few tokens."""

    shift = 0

    def _refusal(self, *_: Any) -> None:
        return None

    def _fork(self, strand: Strand, goal: Goal) -> Any:
        goal.fork -= self.shift
        return super()._fork(strand, goal)

    def accept(self, strand: Strand, token: int) -> Any:
        given = len(strand.header) if strand.parent else strand.forks[-1][0] + len(self.binding.conclusion_header)
        if len(strand.tokens) - given >= SAMPLED:
            return self.end(strand, FinishReason.LENGTH)
        return super().accept(strand, token)


def install() -> None:
    """Let every engine core rehearse before it serves, and tell its scheduler when its weights change."""
    init, set_weight_version = EngineCore.__init__, EngineCore.set_weight_version

    @functools.wraps(init)
    def start(self: EngineCore, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)
        if isinstance(self.scheduler, MultiverseScheduler):
            rehearse(self)

    @functools.wraps(set_weight_version)
    def replace_weights(self: EngineCore, weight_version: str) -> None:
        set_weight_version(self, weight_version)
        if isinstance(self.scheduler, MultiverseScheduler):
            self.scheduler.answers.replace_weights(weight_version)

    EngineCore.__init__ = start
    EngineCore.set_weight_version = replace_weights


def rehearse(core: EngineCore) -> None:
    """Fork and splice once, in an engine core that serves nobody yet.

    Raises:
        UnsupportedHostError: if what comes out is not what vLLM says about the same tokens.
    """
    size = core.scheduler.table.size
    if core.vllm_config.parallel_config.data_parallel_size > 1:
        logger.info("multiverse: no rehearsal with data parallelism, whose ranks step together")
        return
    if 3 * size + 64 > core.scheduler.max_model_len:
        logger.info("multiverse: no rehearsal, max_model_len is too short for blocks of %d tokens", size)
        return
    right, shifted = _difference(core, 0), _difference(core, SHIFT)
    core.scheduler.reset_prefix_cache()
    core.scheduler.start_counting()
    if right > TOLERANCE or shifted < 2 * right:
        raise UnsupportedHostError(
            f"a rehearsed fork and splice differs by {right:.3g} nats from vLLM's own forward (at most {TOLERANCE}), "
            f"and by {shifted:.3g} with shifted positions: this vLLM, or this model, does something that the adapter "
            "does not know. Serve without --plugin multiverse, and please report it"
        )
    logger.info("multiverse: fork and splice rehearsed, %.2g nats off (%.2g with shifted positions)", right, shifted)


def _difference(core: EngineCore, shift: int) -> float:
    """The largest difference between logprobs sampled around a fork and a join and those of a causal forward."""
    scheduler, size = core.scheduler, core.scheduler.table.size
    vocabulary = range(min(core.vllm_config.model_config.get_vocab_size(), 1000))
    ordinary = [token for token in vocabulary if token not in scheduler.binding.tags]
    filler = [ordinary[37 * i % len(ordinary)] for i in range(2 * size)]
    ids = scheduler.binding.ids
    goal = (Tag.BLOCK_OPEN, Tag.GOAL_OPEN, Tag.OUTLINE_OPEN, Tag.OUTLINE_CLOSE, Tag.GOAL_CLOSE)
    prompt = filler[: size // 2 + 3] + [ids[tag] for tag in goal if tag in ids]
    binding = copy.copy(scheduler.binding)
    _lengthen_headers(binding, filler[: size + 5])
    controller = _Rehearsal(binding, prompt=prompt, separators="advance")
    controller.shift = shift
    request = _request(core, "rehearsal", prompt, SamplingParams(temperature=0, logprobs=0))
    super(MultiverseScheduler, scheduler).add_request(request)
    scheduler.admission.enroll(request, controller, Options())
    outputs = _run(core)
    tokens = [token for output in outputs for token in output.new_token_ids]
    rows = [row[0] for output in outputs if output.new_logprobs for row in output.new_logprobs.logprobs]
    params = SamplingParams(max_tokens=1, prompt_logprobs=0, extra_args={OPTIONS: {"enabled": False}})
    scheduler.add_request(_request(core, "reference", prompt + tokens, params))
    expected = _run(core)[0].new_prompt_logprobs_tensors.logprobs[:, 0].tolist()[len(prompt) - 1 :]
    sampled = [abs(row - value) for row, value in zip(rows, expected, strict=True) if row != 0.0]
    return float(max(sampled))


def _request(core: EngineCore, name: str, prompt: list[int], params: SamplingParams) -> Request:
    return Request(f"multiverse-{name}", prompt, params, None, block_hasher=core.request_block_hasher)


def _lengthen_headers(binding: Binding, filler: list[int]) -> None:
    """Give branches a long beginning, so that one of them fills a KV block without many steps."""
    header = (*binding.path_header("1"), *filler)
    binding.path_header = lambda label: header  # type: ignore[method-assign]  # noqa: ARG005


def _run(core: EngineCore) -> list[EngineCoreOutput]:
    """Step until nothing is left to do; everything that came out."""
    outputs: list[EngineCoreOutput] = []
    while core.scheduler.has_requests() or core.batch_queue:
        results, _ = core.step_fn()
        outputs += [output for batch in (results or {}).values() for output in batch.outputs]
    return outputs
