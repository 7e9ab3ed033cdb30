"""vLLM without a model: its own scheduler and front end around a runner that returns tokens at once.

What a strand says is scripted: a root opens a block with so many outlines, each branch writes so many tokens and ends,
the root writes a conclusion and goes on. All CPU time but the runner's own is then the host's and the plugin's.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import Future
from typing import Any, NamedTuple

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}

from meter import Meter
from vllm import LLM, SamplingParams
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.outputs import ModelRunnerOutput

from multiverse import Tag, bind, get_dialect
from multiverse.models import TINY

CONTEXT = 2048
PROMPT = 32
ROWS = 320
BRANCHES, LENGTH = 4, 100
"""Of each answer that forks: branches, and tokens of each."""
BATCHES = (1, 16, 64, 256)


class Script(NamedTuple):
    """What the runner lets a strand say: token ids.

    Attributes:
        block: of a root, from the tag that opens a block to the one that closes its goal.
        text: what all write where nothing else is to be said.
        close: what ends a branch.
        goal_close: behind it, and behind `close`, a strand is computed once more and nothing is sampled.
        length: tokens of a branch before `close`.
    """

    block: tuple[int, ...]
    text: int
    close: int
    goal_close: int
    length: int


class InstantExecutor(UniProcExecutor):
    """Loads the model, and no longer runs it once `script` is set."""

    script: Script | None = None
    meter: Meter
    steps = 0
    rows = 0
    _output: ModelRunnerOutput | None = None

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        if self.script is None:
            return super().execute_model(scheduler_output, non_block)
        self.meter.pause()
        self._output = self._answer(scheduler_output)
        self.meter.resume()
        ran: Future[None] = Future()
        ran.set_result(None)
        return ran

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        if self.script is None:
            return super().sample_tokens(grammar_output, non_block)
        return self._output

    def begin(self, script: Script, meter: Meter) -> None:
        """Return tokens of `script` from now on, and count from zero; what that takes `meter` doesn't count."""
        self.script, self.meter, self.steps, self.rows = script, meter, 0, 0
        self._said: dict[str, list[int]] = {}
        self._last: dict[str, int] = {}

    def _answer(self, step: Any) -> ModelRunnerOutput:
        for request in step.finished_req_ids:
            self._last.pop(request, None)
        for new in step.scheduled_new_reqs:
            self._last[new.req_id] = (new.prefill_token_ids or new.prompt_token_ids)[-1]
        names = list(step.num_scheduled_tokens)
        self.steps, self.rows = self.steps + 1, self.rows + len(names)
        tokens = [[self._next(name)] for name in names]
        return ModelRunnerOutput(names, {name: row for row, name in enumerate(names)}, tokens)

    def _next(self, name: str) -> int:
        script, said = self.script, self._said.setdefault(name, [])
        assert script is not None
        if self._last[name] in (script.goal_close, script.close):
            return script.text  # nobody takes it
        if "/" in name:
            token = script.close if len(said) == script.length else script.text
        else:
            token = script.block[len(said)] if len(said) < len(script.block) else script.text
        said.append(token)
        self._last[name] = token
        return token


def make_engine(plugin: bool, rows: int) -> LLM:
    """An engine for `rows` strands at once, with the plugin or without."""
    if plugin:
        import multiverse_vllm

        multiverse_vllm.enable()
    return LLM(
        str(TINY),
        dtype="float32",
        enforce_eager=True,
        max_model_len=CONTEXT,
        block_size=32,
        num_gpu_blocks_override=rows * (CONTEXT // 32) + 64,
        max_num_seqs=rows,
        max_num_batched_tokens=max(CONTEXT, rows * (PROMPT + 2)),
        distributed_executor_backend=InstantExecutor,
        disable_log_stats=False,
    )


def make_script(llm: LLM, branches: int, length: int) -> Script:
    """Blocks of so many branches of so many tokens; with no branches, text alone."""
    binding = bind(get_dialect("multiverse"), llm.get_tokenizer(), eos=())
    text = llm.get_tokenizer().encode("a", add_special_tokens=False)[0]
    ids = binding.ids
    block: list[int] = []
    if branches:
        block = [ids[Tag.BLOCK_OPEN], ids[Tag.GOAL_OPEN]]
        for label in range(branches):
            outline = llm.get_tokenizer().encode(f"{label + 1}:", add_special_tokens=False)
            block += [ids[Tag.OUTLINE_OPEN], *outline, text, ids[Tag.OUTLINE_CLOSE]]
        block.append(ids[Tag.GOAL_CLOSE])
    return Script(tuple(block), text, ids[Tag.PATH_CLOSE], ids[Tag.GOAL_CLOSE], length)


class Cost(NamedTuple):
    """Microseconds or instructions of host and plugin, without the runner's; steps, and rows of all steps together."""

    amount: float
    steps: int
    rows: int


def run(llm: LLM, script: Script, requests: int, tokens: int, meter: Meter) -> Cost:
    """Serve `requests` at once, each of `tokens` tokens; counted from when all of them are in the batch."""
    engine: Any = llm.llm_engine
    executor = engine.engine_core.engine_core.model_executor
    executor.begin(script, meter)
    parameters = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=True)
    for number in range(requests):
        engine.add_request(f"r{number}", {"prompt_token_ids": [script.text] * PROMPT}, parameters)
    engine.step()
    executor.steps = executor.rows = 0
    meter.start()
    while engine.has_unfinished_requests():
        engine.step()
    return Cost(meter.stop(), executor.steps, executor.rows)


def main(kind: str) -> None:
    """Serve batches of each size and print, as JSON, microseconds or instructions per row and per step."""
    llm = make_engine(kind != "absent", ROWS)
    script = make_script(llm, BRANCHES if kind == "forking" else 0, LENGTH)
    tokens = LENGTH * (BRANCHES + 2) if kind == "forking" else 2 * LENGTH
    meter = Meter()
    run(llm, script, 16, tokens, meter)  # what is made once is made now
    for batch in BATCHES:
        if batch * (BRANCHES + 1 if kind == "forking" else 1) <= ROWS:
            costs = [run(llm, script, batch, tokens, meter) for _ in range(meter.repeats)]
            per_row = min(cost.amount / cost.rows for cost in costs)
            per_step = min(cost.amount / cost.steps for cost in costs)
            print("RESULT", json.dumps([batch, per_row, per_step]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
