"""What vLLM's drafts have that SGLang's have not: little memory, admission, lengths, sampling, other refusals."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", reason="these are vLLM's drafts")

from answer import Answer
from drafter import draft, known_drafts, same
from hosts import Engines
from vllm_host import VLLMHost

from multiverse.errors import OptionError, UnsupportedHostError
from multiverse.models import TINY
from multiverse_vllm.refusals import refuse_configuration


def test_with_little_memory_trees_are_replayed_and_say_the_same(
    engines: Engines,
    drafting: VLLMHost,
    task_prompts: list[list[int]],
    undrafted_answers: list[Answer],
    known: list[list[int]],
) -> None:
    assert drafting.generate(task_prompts[:1])[0].ids == undrafted_answers[0].ids
    scarce = engines(str(TINY), blocks=48, **known_drafts())
    draft(drafting, known, 5)
    same(scarce.generate(task_prompts * 4, logprobs=2), undrafted_answers * 4)
    assert scarce.counters()["replays"] > 0
    assert not any(scarce.leftovers().values())


def test_branches_that_are_held_say_the_same(
    engines: Engines,
    drafting: VLLMHost,
    task_prompts: list[list[int]],
    undrafted_answers: list[Answer],
    known: list[list[int]],
) -> None:
    assert drafting.generate(task_prompts[:1])[0].ids == undrafted_answers[0].ids
    draft(drafting, known, 3)
    held = engines(str(TINY), **known_drafts(), admission="cap:2")
    found = held.generate(task_prompts, logprobs=2, multiverse={"return_tree": True})
    same(found, undrafted_answers)
    assert any(strand.get("held") for answer in found for strand in answer.record["tree"])  # type: ignore[index]


def test_a_request_says_how_many_tokens_are_drafted_for_it(drafting: VLLMHost, longest_prompt: list[int]) -> None:
    longest: dict[int | str | None, tuple[int, int, int]] = {}
    for lengths in (0, 2, "1:4,2:1", None):
        before = drafting.counters()["draft_tokens"], drafting.steps
        found = drafting.generate([longest_prompt], multiverse={"drafts": lengths})
        assert found[0].record is not None
        drafted, steps = (now - then for now, then in zip(_counted(drafting), before, strict=True))
        longest[lengths] = drafted, steps, found[0].record["accepted_draft_tokens"]
    assert longest[0][::2] == (0, 0)
    assert longest[None][1] < longest[2][1] < longest["1:4,2:1"][1] < longest[0][1]


def test_a_request_without_blocks_says_so_for_itself_too(drafting: VLLMHost, longest_prompt: list[int]) -> None:
    steps = {}
    for lengths in (0, 2, None):
        before = drafting.steps
        drafting.generate([longest_prompt], max_tokens=60, multiverse={"enabled": False, "drafts": lengths})
        steps[lengths] = drafting.steps - before
    assert steps[None] < steps[2] < steps[0] == 60


def _counted(host: VLLMHost) -> tuple[int, int]:
    return host.counters()["draft_tokens"], host.steps


def test_who_samples_beside_others_changes_nothing_of_theirs(
    drafting: VLLMHost, task_prompts: list[list[int]], undrafted_answers: list[Answer]
) -> None:
    """On a CPU vLLM 0.32 by itself divides all logits of such a batch by numbers that nobody has set."""
    for sampling in ({"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}, {"repetition_penalty": 1.3}):
        requests = [(prompt, {"logprobs": 2}) for prompt in task_prompts]
        requests += [(prompt, {"max_tokens": 150, "ignore_eos": True} | sampling) for prompt in task_prompts]
        same(drafting.generate_each(requests)[: len(task_prompts)], undrafted_answers)


def test_what_vllm_does_not_sample_with_beside_drafts_is_refused_in_branches_too(drafting: VLLMHost) -> None:
    with pytest.raises(OptionError, match="branch_sampling: min_p can't be set on a server with speculative"):
        drafting.generate([[5, 6]], multiverse={"branch_sampling": {"min_p": 0.1}})
    assert drafting.generate([[5, 6]], max_tokens=3, multiverse={"branch_sampling": {"min_p": 0}})


@pytest.mark.parametrize(
    ("drafts", "v2", "structure", "said"),
    [
        (
            {"method": "eagle3"},
            False,
            "lenient",
            "speculative decoding by 'eagle3' (--speculative-config), possible are ngram, suffix",
        ),
        (
            {"method": "suffix"},
            True,
            "lenient",
            "'suffix' in the V2 model runner (--speculative-config), possible are ngram",
        ),
        ({"method": "ngram"}, False, "strict", "--multiverse-structure strict"),
    ],
)
def test_other_drafts_are_refused_by_name(
    undrafted: VLLMHost, monkeypatch: pytest.MonkeyPatch, drafts: dict[str, str], v2: bool, structure: str, said: str
) -> None:
    monkeypatch.setenv("MULTIVERSE_STRUCTURE", structure)
    config = vars(undrafted.scheduler.vllm_config) | {"speculative_config": SimpleNamespace(**drafts)}
    with pytest.raises(UnsupportedHostError, match=re.escape(said)):
        refuse_configuration(SimpleNamespace(**config, use_v2_model_runner=v2))
