"""Lets every engine core rehearse before it serves (`multiverse.serving.rehearsal`), and hear of new weights."""

from __future__ import annotations

import functools
import logging

from vllm import SamplingParams
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.core import EngineCore
from vllm.v1.request import Request

from multiverse.serving.options import Options
from multiverse.serving.rehearsal import STEPS, Played, endless, rehearse_before_serving
from multiverse_vllm.channels import OPTIONS
from multiverse_vllm.hooks import support
from multiverse_vllm.scheduler.scheduler import MultiverseScheduler

logger = logging.getLogger("vllm.multiverse")


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
            self.scheduler.replace_weights(weight_version)

    EngineCore.__init__ = start
    EngineCore.set_weight_version = replace_weights


def rehearse(core: EngineCore) -> None:
    """Rehearse in an engine core that serves nobody yet; nothing of it is left.

    Raises:
        UnsupportedHostError: if what comes out is not what vLLM says about the same tokens.
    """
    if rehearse_before_serving(_Stage(core), support(), logger):
        core.scheduler.reset_prefix_cache()
        core.scheduler.start_counting()


class _Stage:
    """An engine core that is stepped from here."""

    name = "vLLM"

    def __init__(self, core: EngineCore) -> None:
        self._core, self.scheduler = core, core.scheduler
        self.binding, self.block = self.scheduler.binding, self.scheduler.table.size
        self.vocabulary = core.vllm_config.model_config.get_vocab_size()
        self.caches = bool(core.vllm_config.cache_config.enable_prefix_caching)
        self.made_up = core.vllm_config.load_config.load_format == "dummy"
        self.context, ranks = self.scheduler.max_model_len, core.vllm_config.parallel_config.data_parallel_size
        self.obstacle = "with data parallelism ranks step together" if ranks > 1 else None

    def play(self, prompt: list[int], options: Options, max_tokens: int) -> Played:
        admission = self.scheduler.admission
        usual, admission.options = admission.options, options
        try:
            self._add(prompt, SamplingParams(temperature=0, logprobs=0, ignore_eos=True, max_tokens=max_tokens))
            outputs = self._run()
        finally:
            admission.options = usual
        rows = [row[0] for output in outputs if output.new_logprobs for row in output.new_logprobs.logprobs]
        return Played([token for output in outputs for token in output.new_token_ids], list(map(float, rows)))

    def score(self, tokens: list[int]) -> list[float]:
        plain = {OPTIONS: {"enabled": False}}
        self._add(tokens, SamplingParams(max_tokens=1, prompt_logprobs=0, extra_args=plain))
        scores: list[float] = self._run()[0].new_prompt_logprobs_tensors.logprobs[:, 0].tolist()
        return scores

    def found(self) -> int:
        return self.scheduler.tally.totals["cached_tokens"]

    def left(self) -> list[str]:
        return list(self.scheduler.books.problems())

    def _add(self, prompt: list[int], params: SamplingParams) -> None:
        name, hasher = "multiverse-rehearsal", self._core.request_block_hasher
        self.scheduler.add_request(Request(name, prompt, params, None, block_hasher=hasher))

    def _run(self) -> list[EngineCoreOutput]:
        """Step until nothing is left to do; everything that came out."""
        outputs: list[EngineCoreOutput] = []
        for _ in range(STEPS):
            if not self.scheduler.has_requests() and not self._core.batch_queue:
                return outputs
            results, _ = self._core.step_fn()
            outputs += [output for batch in (results or {}).values() for output in batch.outputs]
        raise endless()
