"""SGLang's scheduler with its own event loop, which does a step when the suite asks for one.

There is neither tokenizer manager nor detokenizer: requests are handed to the scheduler as the tokenizer manager would,
and what it would send to the detokenizer is handed back. SGLang's leak checks run after every step.
"""

from __future__ import annotations

import os
import time
from array import array
from contextlib import suppress
from operator import attrgetter
from typing import Any

from answer import Answer
from device import DEVICE, ON_CPU
from own_calls import OwnCalls
from sglang_drafter import Drafting
from sglang_operator import Operator
from sglang_outputs import ending, entries
from sglang_policies import Policies
from sglang_probes import Probes, check_pages

from multiverse.errors import UnsupportedHostError

ON_CUDA: dict[str, Any] = {
    "sampling_backend": "pytorch",
    "cuda_graph_bs_decode": [1, 2, 4, 8, 16, 32, 64],
    "cuda_graph_bs_prefill": [16, 64, 256, 1024],
}
"""Sampling that obeys seeds, and fewer graphs than SGLang would capture, which takes longer than the tests."""
SPREAD = 3
"""The embedded model is so sure that two seeds can give one answer, as 1 and 2 do with SGLang's random numbers."""


def serve(pipe: Any, model: str, tokens: int, overlap: bool, settings: dict[str, Any], options: dict[str, str]) -> None:
    """Main function of the process."""
    os.environ |= {f"MULTIVERSE_{name.upper()}": value for name, value in options.items()}
    import multiverse_sglang

    multiverse_sglang.enable()
    try:
        stepper = Stepper(pipe, model, tokens, overlap, settings)
    except UnsupportedHostError as refusal:
        pipe.recv()
        pipe.send(refusal)
        return
    with suppress(EOFError):  # the tests are over
        stepper.run()


def server_arguments(model: str, **settings: Any) -> Any:
    """SGLang's, for a scheduler that does steps on demand."""
    from sglang.srt.server_args import ServerArgs

    defaults: dict[str, Any] = ({} if ON_CPU else ON_CUDA) | {
        "page_size": 1,
        "context_length": 1025,  # SGLang leaves the last position free
        "max_running_requests": 64,
        "log_level": "warning",
        "watchdog_timeout": 86_400,  # a scheduler that waits for its test's next step is not stuck
    }
    return ServerArgs(model_path=model, device=DEVICE, dtype="float32", **defaults | settings)


class Stepper(Probes, Operator, Policies, Drafting):
    """Runs SGLang's event loop; before each turn it serves the other process until that one asks for a step."""

    def __init__(self, pipe: Any, model: str, tokens: int, overlap: bool, settings: dict[str, Any]) -> None:
        from sglang.srt.managers.scheduler import Scheduler
        from sglang.srt.runtime_context import SpawnRanks, get_context, publish
        from sglang.srt.server_args import PortArgs

        raw_logprobs = settings.pop("logprobs_mode", "raw_logprobs") == "raw_logprobs"
        arguments = server_arguments(model, max_total_tokens=tokens, disable_overlap_schedule=not overlap, **settings)
        publish(arguments, role="scheduler", ranks=SpawnRanks(world_rank=0, gpu_id=0))
        self.pipe = pipe
        self.scheduler: Any = Scheduler(arguments, PortArgs.init_new(arguments))
        # SGLang obeys seeds only with --enable-deterministic-inference, which it refuses for torch_native
        get_context().override("tests", enable_deterministic_inference=True)
        self.scheduler.tp_worker.model_runner.sampler.enable_deterministic = True
        self.seen: dict[str, list[int]] = {}
        self.answers: dict[str, tuple[list[int], list[float], str | None]] = {}
        self.entries: dict[str, list[Any]] = {}
        self.scores: dict[str, list[Any]] = {}
        self.records: dict[str, dict[str, Any] | None] = {}
        self.failed: set[str] = set()
        self.scheduler.ingest_requests = self.ingest
        self.scheduler.output_streamer.send_to_detokenizer = self
        channel = self.scheduler.ipc_channels.send_to_tokenizer
        self.send_elsewhere, channel.send_output = channel.send_output, self.note_abort
        self.calls = OwnCalls()
        self.probe(raw_logprobs)
        self.watch()

    def run(self) -> None:
        assert self.pipe.recv() == ("ready",)
        self.pipe.send(None)
        self.first = True
        self.scheduler.run_event_loop()

    # --- what the scheduler does ---------------------------------------------------------------------------------

    def send_output(self, output: Any, *_: Any) -> None:
        """What SGLang sends to the detokenizer."""
        self.note_versions(output)
        from sglang.srt.managers.io_struct import unwrap_from_pickle

        values = output.output_token_logprobs_val or [[] for _ in output.rids]
        info = unwrap_from_pickle(output.customized_info) or {}
        news = info.get("multiverse") or [[] for _ in output.rids]
        for rid, ids, logprobs, reason, cached, told in zip(
            output.rids, output.output_ids, values, output.finished_reasons, output.cached_tokens, news, strict=True
        ):
            self.records[rid] = told[-1] if told else None
            self.failed |= {rid for one in told if "failed" in one}
            self.scheduled += cached if reason else 0
            self.seen.setdefault(rid, []).extend(ids)
            known = self.answers[rid]
            self.answers[rid] = ([*known[0], *ids], [*known[1], *logprobs], reason and ending(reason))
        for place, rid in enumerate(output.rids):
            self.entries.setdefault(rid, []).extend(entries(output, place))
            self.scores.setdefault(rid, []).extend(entries(output, place, "input"))

    def note_abort(self, output: Any, *more: Any) -> None:
        """What SGLang sends past the detokenizer: that it has ended a request by itself, and what no test looks at."""
        from sglang.srt.managers.io_struct import AbortReq

        if isinstance(output, AbortReq):
            ids, logprobs, _ = self.answers[output.rid]
            self.answers[output.rid] = (ids, logprobs, "abort")
        else:
            self.send_elsewhere(output, *more)

    # --- what the test asks for ----------------------------------------------------------------------------------

    def ingest(self, *_: Any, **__: Any) -> list[Any]:
        """Instead of reading from the tokenizer manager."""
        if not self.first:
            if not self.scheduler.is_fully_idle():
                self.scheduler.invariant_checker.self_check_during_busy()
                check_pages(self.scheduler)
            seen, self.seen = self.seen, {}
            problems, self.problems = self.problems, []
            self.pipe.send(AssertionError(f"the books do not agree: {problems}") if problems else seen)
        self.first = False
        while (message := self.pipe.recv()) != ("step",):
            self.pipe.send(getattr(self, f"on_{message[0]}")(*message[1:]))
        received: list[Any] = self.scheduler.request_receiver.recv_requests()  # nothing, and what time it is
        return received

    def on_start(self, rid: str, prompt: list[int], sampling: dict[str, Any]) -> None:
        from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
        from sglang.srt.sampling.sampling_params import SamplingParams

        logprobs, chosen = sampling.pop("logprobs", None), sampling.pop("logprob_token_ids", None)
        scored, start = sampling.pop("prompt_logprobs", None), sampling.pop("logprob_start_len", -1)
        options = sampling.pop("multiverse", None)
        seed, priority = sampling.pop("seed", None), sampling.pop("priority", None)
        bias = {str(token): value for token, value in (sampling.pop("logit_bias", None) or {}).items()}
        parameters = SamplingParams(
            max_new_tokens=sampling.pop("max_tokens"),
            sampling_seed=None if seed is None else seed * SPREAD,
            logit_bias=bias or None,
            custom_params=None if options is None else {"multiverse": options},
            min_new_tokens=sampling.pop("min_tokens", 0),
            no_stop_trim=sampling.pop("include_stop_str_in_output", False),
            **sampling,
        )
        parameters.normalize(self.scheduler.tokenizer)
        self.answers[rid] = ([], [], None)
        self.scheduler.handle_generate_request(
            TokenizedGenerateReqInput(
                rid=rid,
                input_text=None,
                input_ids=array("q", prompt),
                input_embeds=None,
                mm_inputs=None,
                token_type_ids=None,
                sampling_params=parameters,
                return_logprob=any(asked is not None for asked in (logprobs, chosen, scored)),
                logprob_start_len=start,
                top_logprobs_num=(logprobs or 0) if scored is None else scored,
                token_ids_logprob=chosen,
                stream=True,
                priority=priority,
            )
        )

    def on_abort(self, rid: str) -> None:
        from sglang.srt.managers.io_struct import AbortReq

        self.scheduler.abort_request(AbortReq(rid=rid))

    def on_finished(self, rid: str) -> bool:
        return self.answers[rid][2] is not None

    def on_answer(self, rid: str) -> Answer:
        ids, logprobs, reason = self.answers[rid]
        reason = "abort: internal error of the front end" if rid in self.failed else reason
        return Answer(
            ids, logprobs or None, str(reason), self.records.get(rid), self.entries.get(rid), self.scores.get(rid)
        )

    def on_leftovers(self) -> dict[str, int]:
        scheduler = self.scheduler
        pool = scheduler.token_to_kv_pool_allocator
        free = pool.available_size() + scheduler.tree_cache.evictable_size()
        batches = [batch for batch in (scheduler.running_batch, scheduler.last_batch) if batch is not None]
        running = {id(request) for batch in batches for request in batch.reqs if not request.finished()}
        conductor = scheduler.multiverse_conductor
        return {
            "slots": scheduler.max_total_num_tokens - free,
            "rows": scheduler.req_to_token_pool.size - scheduler.req_to_token_pool.available_size(),
            "protected": scheduler.tree_cache.protected_size(),
            "requests": len(running) + len(scheduler.waiting_queue) + len(conductor.trees.by_rid),
        }

    def on_flush(self) -> None:
        assert self.scheduler.flush_cache()

    def on_ask(self, path: str) -> Any:
        return attrgetter(path)(self.scheduler)

    def on_count(self) -> None:
        self.calls.begin()

    def on_counted(self) -> dict[str, int]:
        return self.calls.end()

    def on_cpu_seconds(self) -> float:
        return time.process_time()

    def on_configure(self, values: dict[str, Any]) -> dict[str, Any]:
        single_pass, before = self.scheduler.multiverse_conductor.life.single_pass, {}
        for name, value in values.items():
            owner, attribute = (single_pass, "sound") if name == "single_pass" else (self.scheduler, name)
            before[name] = getattr(owner, attribute)
            setattr(owner, attribute, value)
        return before
