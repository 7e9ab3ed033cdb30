"""SGLang whose functions are all there and mean something else: the rehearsal at start refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sglang", reason="vLLM's is in test_vllm_rehearsal.py")

from sglang_faults import FAULTS
from sglang_forks import python
from sglang_host import SGLangHost

from multiverse.models import TINY

SAID = {
    "nothing is found": "tokens are in the prefix cache, no more than of a plain one",
    "tokens stay where they are": "a rehearsed fork and splice differs",
    "what is unlocked stays locked": "a rehearsal leaves something over (tokens locked in the radix tree",
}
START = """
import logging, os, sys
sys.path[:0] = {path!r}
os.environ["MULTIVERSE_UNTESTED_HOST"] = "1"
import multiverse_sglang
from multiverse_sglang import hooks
hooks.host_version = lambda: "0.5.99"
multiverse_sglang.enable()
from sglang_faults import planted
from sglang_stepper import Stepper
handler = logging.StreamHandler(sys.stderr)
logging.getLogger("sglang.multiverse").addHandler(handler)
{more}
scheduler = Stepper(None, {model!r}, 4096, True, dict(page_size=16, attention_backend="multiverse")).scheduler
conductor = scheduler.multiverse_conductor
assert not any(conductor.tally.totals.values())
assert scheduler.tree_cache.evictable_size() == 0
assert not scheduler.gracefully_exit
"""
"""A scheduler's start in a release that was never tested; its process ends with an error if it is refused."""


@pytest.fixture(scope="module")
def paged_host() -> Iterator[SGLangHost]:
    host = SGLangHost(str(TINY), settings={"page_size": 16})
    yield host
    host.close()


def test_every_fault_is_looked_for() -> None:
    assert SAID.keys() == FAULTS.keys()


@pytest.mark.parametrize("fault", SAID)
def test_a_change_of_meaning_is_refused(paged_host: SGLangHost, fault: str) -> None:
    *_, refusal = paged_host.operate("rehearse", fault)
    assert refusal.startswith("refused: ")
    assert SAID[fault] in refusal
    assert "this SGLang, or this model" in refusal
    assert paged_host.operate("rehearse")[-1].startswith("multiverse: fork and splice rehearsed")  # it was the fault


def test_an_untested_release_rehearses_with_a_warning_or_does_not_run(paged_host: SGLangHost) -> None:
    warning, rehearsed = paged_host.operate("rehearse", None, "0.99.0")
    assert "SGLang 0.99.0 was never tested" in warning
    assert "fork and splice rehearsed" in rehearsed
    assert "a context of 100 tokens is too short" in paged_host.operate("rehearse", None, None, 100)[-1]
    *_, refusal = paged_host.operate("rehearse", None, "0.99.0", 100)
    assert refusal.startswith("refused: a release that was never tested has to rehearse, and can't: a context of 100")


@pytest.mark.parametrize("fault", [None, "tokens stay where they are"])
def test_an_untested_scheduler_rehearses_before_it_serves_and_counts_nothing_of_it(fault: str | None) -> None:
    here = Path(__file__).parent
    more = (
        "logging.getLogger('sglang.multiverse').setLevel(logging.INFO)"
        if fault is None
        else (f"planted({fault!r}).start()")
    )
    result = python(START.format(path=[str(here), str(here.parent)], model=str(TINY), more=more))
    said = "multiverse: fork and splice rehearsed" if fault is None else SAID[fault]
    assert said in result.stderr
    assert (result.returncode == 0) is (fault is None), result.stderr
