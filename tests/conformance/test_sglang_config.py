"""SGLang configured in other ways: what works gives the same answers, what can't is refused with its flag."""

from __future__ import annotations

import subprocess
import sys
from random import Random
from typing import Any

import pytest

pytest.importorskip("sglang", reason="these are SGLang's own settings")

from sglang_host import SGLangHost

from multiverse import Limits
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import generate as reference


@pytest.mark.parametrize(
    "settings",
    [
        {"chunked_prefill_size": 32, "max_running_requests": 16},  # prompts come in chunks, branches wait for a place
        {"chunked_prefill_size": 48, "enable_mixed_chunk": True},
        {"page_size": 32, "chunked_prefill_size": 48, "enable_mixed_chunk": True},
        {"disable_radix_cache": True},
        {"enable_priority_scheduling": True},
    ],
    ids=["chunked prefill", "mixed chunks", "large pages", "no radix cache", "priority scheduling"],
)
def test_answers_do_not_depend_on_how_sglang_schedules(settings: dict[str, Any], tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    rng = Random(9)
    prompts = [tokenizer.encode(turn(generate(rng, kind, held_out=True))) for kind in ("nested", "flat", "chain") * 4]
    expected = [answer.ids for answer in reference(model, tokenizer, prompts, limits=Limits(max_tokens=800))]
    host = SGLangHost(str(TINY), settings=settings)
    assert [answer.ids for answer in host.generate(prompts)] == expected
    assert not any(host.leftovers().values()), host.leftovers()


def test_what_can_not_work_is_refused_before_anything_is_loaded_with_its_flag() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "sglang.launch_server", "--plugin", "multiverse"]
    command += ["--model-path", str(TINY), "--device", "cpu", "--attention-backend", "torch_native"]
    command += ["--pp-size", "2", "--tokenizer-worker-num", "2", "--skip-tokenizer-init"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("multiverse does not work with")]
    for flag in ("--pp-size", "--tokenizer-worker-num", "--skip-tokenizer-init"):
        assert flag in line
    assert "--speculative-algorithm" not in line
