"""Lets a scheduler rehearse before it serves (`multiverse.serving.rehearsal`), in SGLang's own event loop.

Every rank of a tensor-parallel host and every replica of a data-parallel one does by itself, the same in all of them:
no rank hears of requests from another, and none asks for the time. What ranks compute together keeps them in step.
"""

from __future__ import annotations

import logging
from array import array

from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
from sglang.srt.sampling.sampling_params import SamplingParams

from multiverse.serving.options import Options
from multiverse.serving.refusals import present
from multiverse.serving.rehearsal import STEPS, Played, endless, length, rehearse_before_serving
from multiverse.wire.responses import FIELD
from multiverse_sglang.hooks import support
from multiverse_sglang.host import Message, Scheduler
from multiverse_sglang.scheduler.conductor import conductor_of
from multiverse_sglang.scheduler.unseen import unseen

BLOCK = 16
"""Tokens after which a rehearsal takes a block to end, or a multiple of them: pages may be of one token."""

logger = logging.getLogger("sglang.multiverse")


def rehearse(scheduler: Scheduler) -> None:
    """Rehearse in a scheduler that serves nobody yet; nothing of it is left.

    Raises:
        UnsupportedHostError: if what comes out is not what SGLang says about the same tokens.
    """
    with unseen(scheduler):
        if rehearse_before_serving(_Stage(scheduler), support(), logger):
            scheduler.flush_cache()


class _Stage:
    """A scheduler whose event loop runs until nothing is left to do. It gets its requests, and says what it has to say,
    here."""

    name = "SGLang"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._conductor = scheduler, conductor_of(scheduler)
        self.binding = self._conductor.admission.binding
        self.block = -(-BLOCK // scheduler.page_size) * scheduler.page_size
        self.vocabulary: int = scheduler.model_config.vocab_size
        self.caches = scheduler.tree_cache.supports_prefix_sharing()
        self.context = scheduler.max_req_len
        self.made_up = scheduler.server_args.load_format == "dummy"
        self.obstacle = _obstacle(scheduler, length(self.block))
        self._outputs: list[Message] = []
        self._steps = 0

    def play(self, prompt: list[int], options: Options, max_tokens: int) -> Played:
        admission = self._conductor.admission
        usual, admission.options = admission.options, options
        try:
            outputs = self._serve(prompt, -1, SamplingParams(max_new_tokens=max_tokens, temperature=0, ignore_eos=True))
        finally:
            admission.options = usual
        tokens = [token for output in outputs for token in output.output_ids[0]]
        return Played(tokens, [value for output in outputs for value in output.output_token_logprobs_val[0]])

    def score(self, tokens: list[int]) -> list[float]:
        plain = {FIELD: {"enabled": False}}
        outputs = self._serve(tokens, 0, SamplingParams(max_new_tokens=1, temperature=0, custom_params=plain))
        return [value for output in outputs for value in output.input_token_logprobs_val[0][1:]]

    def found(self) -> int:
        return self._conductor.tally.totals["cached_tokens"]

    def left(self) -> list[str]:
        return self._conductor.books.problems_at_rest()

    def _serve(self, prompt: list[int], logprobs_from: int, parameters: SamplingParams) -> list[Message]:
        """Let the event loop run until nothing is left to do; everything that it sent to the detokenizer."""
        scheduler, streamer = self._scheduler, self._scheduler.output_streamer
        usual = scheduler.ingest_requests, streamer.send_to_detokenizer
        scheduler.ingest_requests, streamer.send_to_detokenizer = self._ingest, self
        self._outputs, self._steps = [], 0
        parameters.normalize(scheduler.tokenizer)
        try:
            scheduler.handle_generate_request(_request(prompt, logprobs_from, parameters))
            scheduler.run_event_loop()
        finally:
            scheduler.ingest_requests, streamer.send_to_detokenizer = usual
            scheduler.gracefully_exit = False
        return self._outputs

    def _ingest(self) -> None:
        """Instead of reading what clients ask for: see whether this was all."""
        self._steps += 1
        if self._steps > STEPS:
            raise endless()
        self._scheduler.gracefully_exit = self._scheduler.is_fully_idle()

    def send_output(self, output: Message, _: object = None) -> None:
        """What goes to the detokenizer."""
        self._outputs.append(output)


def _obstacle(scheduler: Scheduler, tokens: int) -> str | None:
    """Why a scheduler can't rehearse with requests of so many `tokens`; `None` if it can."""
    limit, kv = scheduler.max_new_tokens_limit, scheduler.token_to_kv_pool_allocator.get_kvcache()
    obstacles = {
        f"SGLANG_MAX_NEW_TOKENS_LIMIT is {limit}": 0 < (limit or 0) < tokens,
        f"KV in {kv.dtype} is rounded, and a prompt that is computed at once attends to what is not": (
            kv.dtype.itemsize < 2
        ),
    }
    return next(iter(present(obstacles)), None)


def _request(prompt: list[int], logprobs_from: int, parameters: SamplingParams) -> TokenizedGenerateReqInput:
    """What the tokenizer manager would send."""
    return TokenizedGenerateReqInput(
        rid="multiverse-rehearsal",
        input_text=None,
        input_ids=array("q", prompt),
        input_embeds=None,
        mm_inputs=None,
        token_type_ids=None,
        sampling_params=parameters,
        return_logprob=True,
        logprob_start_len=logprobs_from,
        top_logprobs_num=0,
        token_ids_logprob=None,
        stream=False,
    )
