"""SGLang as the suite sees it: its scheduler (`sglang_stepper.py`) in a process of its own, step by step."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from answer import Answer
from device import ON_CPU
from sglang_forks import FORKS
from sglang_stepper import serve

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1",
    "SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION": "8",  # else SGLang admits so carefully that memory never gets short
}

TRITON = Path(sys.prefix, "triton")
"""Where `tools/setup sglang-tests` puts Triton. Only for processes that interpret its kernels: without a driver SGLang
has to believe that there is none."""
ATTENTION = "multiverse" if ON_CPU else "triton"
"""SGLang's `--attention-backend`, unless `settings` say another."""
ON_CUDA = {"TRITON_F32_DEFAULT": "ieee"}
"""Else Triton's float32 is TF32, of 10 bits. Any variable makes a process a spawned one: importing SGLang asks CUDA for
its devices, and processes forked afterwards can't use it."""
TOKENS_PER_BLOCK = 32
"""The suite counts memory in blocks of this size."""


class SGLangHost:
    """One scheduler. `blocks` makes memory scarce, `late` is SGLang's default, the overlap scheduler; `settings` are
    SGLang's and, with vLLM's name, `logprobs_mode`; `options` ours, `environment` variables that SGLang reads as it is
    imported, which is then done anew.

    The adapter compares its books with SGLang's every few steps; a step in which they don't agree is an AssertionError.
    With pages of more than one token, it is checked at every step whose they are and that rows consist of whole ones.
    """

    def __init__(
        self,
        model: str,
        blocks: int | None = None,
        late: bool = True,
        settings: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        **options: str,
    ) -> None:
        options = {"integrity_interval": "4"} | options
        given = {"attention_backend": ATTENTION} | (settings or {})
        at_import, path = dict(environment or {}), sys.path
        if not ON_CPU:
            at_import |= ON_CUDA
        if ON_CPU and given["attention_backend"] in ("triton", "multiverse-triton"):
            assert TRITON.is_dir(), f"{TRITON} is missing: tools/setup sglang-tests"
            at_import |= {"TRITON_INTERPRET": "1", "PYTHONPATH": f"{TRITON}:{os.environ.get('PYTHONPATH', '')}"}
            path = [str(TRITON), *path]
        context = multiprocessing.get_context("spawn") if at_import else FORKS
        self._pipe, theirs = context.Pipe()
        tokens = 8192 if blocks is None else blocks * TOKENS_PER_BLOCK
        arguments = (theirs, model, tokens, late, given, options)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        with patch.dict(os.environ, at_import), patch.object(sys, "path", path):
            self._process.start()
        theirs.close()  # so that the death of the process is noticed
        self.penalty_lag, self.head_tokens, self._steps = int(late), 0, 0
        self._ids = itertools.count()
        self._missed: dict[str, list[int]] = {}
        self._call("ready")

    def _call(self, *message: Any) -> Any:
        self._pipe.send(message)
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise AssertionError("the scheduler process died, see its output") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def generate(self, prompts: Sequence[list[int]], **sampling: Any) -> list[Answer]:
        several = [{"seed": sampling["seed"] + i} if "seed" in sampling else {} for i in range(sampling.pop("n", 1))]
        return self.generate_each([(prompt, sampling | own) for prompt in prompts for own in several])

    def generate_each(self, each: Sequence[tuple[list[int], dict[str, Any]]]) -> list[Answer]:
        requests = [self.start(prompt, **sampling) for prompt, sampling in each]
        while not all(map(self.finished, requests)):
            self._call("step")
        answers = [self.answer(request) for request in requests]
        self._settle()
        self._missed = {}
        for answer in answers:
            if answer.finish_reason.startswith("abort: "):
                raise ValueError(answer.finish_reason)
        return answers

    def start(self, prompt: list[int], **sampling: Any) -> str:
        name = f"request-{next(self._ids)}."
        self._call("start", name, prompt, {"temperature": 0.0, "max_tokens": 800} | sampling)
        return name

    def step(self) -> dict[str, list[int]]:
        seen, self._missed = self._missed, {}
        for request, tokens in self._call("step").items():
            seen.setdefault(request, []).extend(tokens)
        return seen

    def own_calls(self) -> dict[str, int]:
        self._call("count")
        self.step()
        return dict(self._call("counted"))

    def finished(self, request: str) -> bool:
        """Whether its last token was seen."""
        return bool(self._call("finished", request))

    def answer(self, request: str) -> Answer:
        """What came of it so far."""
        found: Answer = self._call("answer", request)
        return found

    def abort(self, request: str) -> None:
        self._call("abort", request)
        self._settle()

    def _settle(self) -> None:
        """SGLang drops an aborted or ended request with the result that is still under way. Other clients see on."""
        for _ in range(3):
            self._missed = self.step()

    def leftovers(self) -> dict[str, int]:
        return dict(self._call("leftovers"))

    def operate(self, name: str, *values: Any) -> Any:
        """What `sglang_operator.py` knows by this name."""
        return self._call(name, *values)

    def integrity(self) -> list[str]:
        """What of the adapter's books does not agree with SGLang's now."""
        return list(self._call("integrity"))

    def flush(self) -> None:
        """Empty the prefix cache."""
        self._call("flush")

    def configure(self, **values: Any) -> dict[str, Any]:
        """Set attributes of the scheduler, or `single_pass` of the adapter; what they were before."""
        return dict(self._call("configure", values))

    def ask(self, path: str) -> Any:
        """An attribute of the scheduler, plain data only."""
        return self._call("ask", path)

    @property
    def steps(self) -> int:
        self._steps += len(self._call("forwards"))
        return self._steps

    def kv_reads(self) -> list[tuple[int, int, int]]:
        """See `Stepper.on_kv_reads`."""
        return list(self._call("kv_reads"))

    def cpu_seconds(self) -> float:
        """What the process has used so far."""
        return float(self._call("cpu_seconds"))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def counters(self) -> dict[str, int]:
        return dict(self._call("counters"))
