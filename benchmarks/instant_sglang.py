"""SGLang without a model: its own scheduler and output streamer around a model runner that returns tokens at once.

What a strand says is scripted, as in `instant_vllm.py`. All CPU time of the scheduler's thread but the runner's own is
then the host's and the plugin's: what is sent to the detokenizer is encoded, and not sent; detokenizer and tokenizer
manager, which have processes of their own, are left out. SGLang's default, the overlap scheduler, is what is measured,
and every request streams.
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from typing import Any, NamedTuple

os.environ |= {"SGLANG_USE_CPU_ENGINE": "1"}

import torch
from meter import Meter
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.managers.scheduler_components.output_sender import SenderWrapper
from sglang.srt.model_executor.model_runner import ModelRunnerOutput
from sglang.srt.runtime_context import SpawnRanks, publish
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import PortArgs, ServerArgs

from multiverse import Tag, bind, get_dialect
from multiverse.models import TINY

CONTEXT = 2048
PROMPT = 32
ROWS = 320
BRANCHES, LENGTH = 4, 100
"""Of each answer that forks: branches, and tokens of each."""
BATCHES = (1, 16, 64, 256)
WARM = 4
"""Steps that are not counted: prompts, and what is still made of them."""


class Script(NamedTuple):
    """What the runner lets a strand say: token ids.

    Attributes:
        block: of a root, from the tag that opens a block to the one that closes its goal.
        text: what all write where nothing else is to be said.
        close: what ends a branch.
        length: tokens of a branch before `close`.
    """

    block: tuple[int, ...]
    text: int
    close: int
    length: int


class Cost(NamedTuple):
    """Microseconds or instructions of host and plugin, without the runner's; steps, and rows of all steps together."""

    amount: float
    steps: int
    rows: int


class Nowhere:
    """A socket that takes everything."""

    def send(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    send_pyobj = send


class InstantRunner:
    """In place of the model and the sampler of a scheduler, whose steps it counts once it was told what to say.

    Whatever a strand wrote is told from the lengths of its sequences, as the overlap scheduler has not seen the last
    token yet when the next is wanted. Strands that the plugin made have the names of their requests and more.
    """

    def __init__(self, scheduler: Any, meter: Meter) -> None:
        self._meter = meter
        worker = scheduler.tp_worker
        self._runner, self._forward = worker.model_runner, worker.forward_batch_generation
        self.reset()
        worker.forward_batch_generation = self._note
        self._runner._forward_raw = self._compute
        self._runner.sample = self._sample

    def begin(self, script: Script) -> None:
        """Say this from now on, and count from zero."""
        self.script = script
        self._bases: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.steps = self.rows = 0

    def _note(self, batch: Any, **options: Any) -> Any:
        self._batch = batch
        return self._forward(batch, **options)

    def _compute(self, *_: Any) -> ModelRunnerOutput:
        return ModelRunnerOutput(LogitsProcessorOutput(None), False)

    def _sample(self, _: Any, __: Any) -> torch.Tensor:
        self._meter.pause()
        lengths = self._batch.seq_lens_cpu.tolist()
        ids = [self._next(r.rid, length) for r, length in zip(self._batch.reqs, lengths, strict=True)]
        self.steps, self.rows = self.steps + 1, self.rows + len(ids)
        found = torch.tensor(ids, dtype=torch.int64)
        self._meter.resume()
        return found

    def _next(self, name: str, length: int) -> int:
        script, strand = self.script, name.partition("#")[2]
        if strand:
            said = length - self._bases.setdefault(name, length)
            return script.close if said >= script.length else script.text
        said = length - PROMPT
        return script.block[said] if said < len(script.block) else script.text


class Engine:
    """A scheduler for `rows` strands at once, with the plugin or without."""

    def __init__(self, plugin: bool, rows: int) -> None:
        if plugin:
            import multiverse_sglang

            multiverse_sglang.enable()
        arguments = ServerArgs(
            model_path=str(TINY),
            device="cpu",
            dtype="float32",
            attention_backend="torch_native",
            page_size=1,
            context_length=CONTEXT,
            max_running_requests=rows,
            max_total_tokens=rows * 1024,
            max_prefill_tokens=rows * PROMPT,
            chunked_prefill_size=rows * PROMPT,
            log_level="warning",
        )
        publish(arguments, role="scheduler", ranks=SpawnRanks(world_rank=0, gpu_id=0))
        self.scheduler: Any = Scheduler(arguments, PortArgs.init_new(arguments))
        self.tokenizer = self.scheduler.tokenizer
        self.meter = Meter()
        self._runner = InstantRunner(self.scheduler, self.meter)
        self.scheduler.output_streamer.send_to_detokenizer = SenderWrapper(Nowhere())  # type: ignore[arg-type]
        self.scheduler.ingest_requests = self._ingest
        self._names = 0

    def run(self, script: Script, requests: int, tokens: int) -> Cost:
        """Serve `requests` at once, each of `tokens` tokens; counted from when all of them are in the batch."""
        self._runner.begin(script)
        self._waiting = [self._request(script, tokens) for _ in range(requests)]
        self._cost: Cost | None = None
        self._counting = False
        self.scheduler.gracefully_exit = False
        self.scheduler.run_event_loop()
        assert self._cost is not None
        return self._cost

    def _request(self, script: Script, tokens: int) -> TokenizedGenerateReqInput:
        parameters = SamplingParams(temperature=0.0, max_new_tokens=tokens)
        parameters.normalize(self.tokenizer)
        self._names += 1
        return TokenizedGenerateReqInput(
            rid=f"r{self._names}",
            input_text=None,
            input_ids=array("q", [script.text] * (PROMPT - 1) + [script.text + self._names % 7]),
            input_embeds=None,
            mm_inputs=None,
            token_type_ids=None,
            sampling_params=parameters,
            return_logprob=False,
            logprob_start_len=-1,
            top_logprobs_num=0,
            token_ids_logprob=None,
            stream=True,
        )

    def _ingest(self) -> None:
        """Instead of reading from the tokenizer manager, at the start of each turn: what this takes isn't counted."""
        runner = self._runner
        if self._waiting:
            for request in self._waiting:
                self.scheduler.handle_generate_request(request)
            self._waiting = []
        elif not self._counting:
            if runner.steps >= WARM:
                runner.reset()
                self._counting = True
                self.meter.start()
        else:
            self.meter.pause()
            over = self.scheduler.is_fully_idle()
            self.meter.resume()
            if over:
                self._cost = Cost(self.meter.stop(), runner.steps, runner.rows)
                self._counting = False
                self.scheduler.gracefully_exit = True


def make_script(tokenizer: Any, branches: int, length: int) -> Script:
    """Blocks of so many branches of so many tokens; with no branches, text alone."""
    ids = bind(get_dialect("multiverse"), tokenizer, eos=()).ids
    text = tokenizer.encode("a", add_special_tokens=False)[0]
    block: list[int] = []
    if branches:
        block = [ids[Tag.BLOCK_OPEN], ids[Tag.GOAL_OPEN]]
        for label in range(branches):
            outline = tokenizer.encode(f"{label + 1}:", add_special_tokens=False)
            block += [ids[Tag.OUTLINE_OPEN], *outline, text, ids[Tag.OUTLINE_CLOSE]]
        block.append(ids[Tag.GOAL_CLOSE])
    return Script(tuple(block), text, ids[Tag.PATH_CLOSE], length)


def main(kind: str) -> None:
    """Serve batches of each size and print, as JSON, microseconds or instructions per row and per step."""
    engine = Engine(kind != "absent", ROWS)
    script = make_script(engine.tokenizer, BRANCHES if kind == "forking" else 0, LENGTH)
    tokens = LENGTH * (BRANCHES + 2) if kind == "forking" else 2 * LENGTH
    engine.run(script, 16, tokens)  # what is made once is made now
    for batch in BATCHES:
        if batch * (BRANCHES + 1 if kind == "forking" else 1) <= ROWS:
            costs = [engine.run(script, batch, tokens) for _ in range(engine.meter.repeats)]
            per_row = min(cost.amount / cost.rows for cost in costs)
            per_step = min(cost.amount / cost.steps for cost in costs)
            print("RESULT", json.dumps([batch, per_row, per_step]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
