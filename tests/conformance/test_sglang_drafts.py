"""What SGLang's drafts have that vLLM's have not: it retracts whole trees, and refuses other things."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sglang", reason="these are SGLang's drafts")

from answer import Answer, Host
from drafter import draft, draft_no_more, known_drafts, same
from hosts import Engines

from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.models import TINY
from multiverse.serving.options import Options
from multiverse_sglang.refusals import check_drafts, refuse_arguments, refuse_unsupported


@pytest.mark.parametrize("page", [pytest.param(1, marks=pytest.mark.long), 16])
def test_trees_that_sglang_retracts_are_replayed_and_say_the_same(
    engines: Engines, task_prompts: list[list[int]], known: list[list[int]], undrafted_answers: list[Answer], page: int
) -> None:
    host: Any = engines(str(TINY), page=page, **known_drafts())
    draft(host, known, 5)
    host.operate("retract", 9)
    before = host.counters()["replays"]
    same(host.generate(task_prompts, logprobs=2), undrafted_answers)
    host.operate("retract", 0)
    draft_no_more(host)
    assert host.counters()["replays"] > before
    assert not any(host.leftovers().values()), host.leftovers()


def test_counting_drafts_ends_nobody_whatever_raises(
    drafting: Host, task_prompts: list[list[int]], undrafted_answers: list[Answer]
) -> None:
    host: Any = drafting
    host.operate("logged")
    host.operate("plant", "multiverse_sglang.scheduler.drafts:Drafts.note", 20)
    same(host.generate(task_prompts, logprobs=2), undrafted_answers)
    assert not host.operate("remove", "multiverse_sglang.scheduler.drafts:Drafts.note"), "it was never called"
    ((line, traceback),) = host.operate("logged")
    assert "planted" in line
    assert traceback
    assert not any(host.leftovers().values()), host.leftovers()


@pytest.mark.parametrize("kind", ["EAGLE", "EAGLE3", "STANDALONE", "DFLASH"])
def test_models_that_draft_are_refused_by_name(kind: str) -> None:
    from sglang_stepper import server_arguments

    arguments = server_arguments(str(TINY))
    arguments.speculative_algorithm = kind
    with pytest.raises(UnsupportedHostError, match=rf"speculative decoding by '{kind}' \(--speculative-algorithm\)"):
        refuse_arguments(arguments)


@pytest.mark.parametrize(
    ("options", "overlap", "said"),
    [
        (Options(), True, "--disable-overlap-schedule"),
        (Options(structure="strict"), False, "--multiverse-structure strict"),
        (Options(admission="cap:2"), False, "--multiverse-admission cap:2"),
    ],
)
def test_what_can_not_be_beside_drafts_is_refused_by_name(options: Options, overlap: bool, said: str) -> None:
    from test_sglang_config import a_scheduler

    scheduler = a_scheduler({"rope_type": "llama3"})
    scheduler.enable_overlap = overlap
    refuse_unsupported(scheduler, options)
    scheduler.spec_algorithm = SimpleNamespace(is_none=lambda: False)
    with pytest.raises(UnsupportedHostError, match=re.escape(said)):
        refuse_unsupported(scheduler, options)


@pytest.mark.parametrize("asked", [{"structure": "strict"}, {"drafts": 2}])
def test_what_a_request_can_not_have_beside_drafts_is_refused_by_name(asked: dict[str, Any]) -> None:
    check_drafts(Options())
    with pytest.raises(OptionError, match=next(iter(asked))):
        check_drafts(Options(**asked))
