"""SEMANTICS 6: scores of given tokens. As many as the prompt has, each the oracle's, whatever blocks it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from answer import Answer, Host
from modes import DRAFTS
from prompts import structured_prompts
from test_answers import TOLERANCE, encode
from test_logprobs import CHOSEN, VLLM

from multiverse import Binding, Tag, parse_ids
from multiverse.attention import additive, dense_mask, positions
from multiverse.models.task import Problem
from multiverse.oracle import load, rate
from multiverse.structure.layout import layout

Never = Callable[[Iterable[int]], dict[str, Any]]
Entries = list[dict[int, float] | None]


@torch.inference_mode()
def oracle_scores(model: Any, binding: Binding, prompt: list[int]) -> tuple[torch.Tensor, list[int]]:
    """By one forward, logprobs `[len(prompt), vocabulary]` of what may stand at each place, and its predecessors."""
    found = layout(parse_ids(prompt, binding))
    mask = additive(dense_mask(found))[None, None]
    logits = model(torch.tensor([prompt]), attention_mask=mask, position_ids=positions(found)[None]).logits[0]
    return logits.log_softmax(-1)[torch.tensor(found.predecessors)], found.predecessors


def check_scores(
    model: Any,
    binding: Binding,
    prompt: list[int],
    answer: Answer,
    top: int,
    chosen: tuple[int, ...] = (),
    start: int = 0,
) -> int:
    """Every entry is the oracle's: the token's own logprob, those of the `top` likeliest and those of the `chosen`.

    Returns:
        how many tokens have none.
    """
    assert answer.scores is not None
    assert len(answer.scores) == len(prompt) - start
    expected, predecessors = oracle_scores(model, binding, prompt)
    for place, entry in enumerate(answer.scores, start):
        if predecessors[place] < 0 or place == start:
            assert entry is None, place
            continue
        assert entry is not None, place
        tokens = {prompt[place], *chosen, *expected[place].topk(top).indices.tolist()}
        values = sorted(expected[place, list(tokens)].tolist())
        assert entry[prompt[place]] == pytest.approx(float(expected[place, prompt[place]]), abs=TOLERANCE), place
        assert sorted(entry.values()) == pytest.approx(values, abs=TOLERANCE), place
    return answer.scores.count(None)


@pytest.fixture
def never(mode: str, tiny: tuple[Any, Any]) -> Never:
    """Sampling parameters that keep tokens from being sampled; vLLM refuses the usual ones beside drafts."""
    if mode != DRAFTS or not VLLM:
        return lambda banned: {"logit_bias": dict.fromkeys(banned, -100.0)}
    return lambda banned: {"allowed_token_ids": sorted(set(range(len(tiny[1]))) - set(banned))}


def asking(top: int, start: int = 0) -> dict[str, Any]:
    """Sampling parameters that ask for scores of the prompt."""
    return {"prompt_logprobs": top} if VLLM else {"prompt_logprobs": top, "logprob_start_len": start}


def test_scores_of_prompts_with_blocks_are_the_oracles_cached_or_not(
    random_host: Host, random_model: Path, binding: Binding, never: Never
) -> None:
    model, _ = load(str(random_model))
    prompts = structured_prompts(Random(41), binding, 8, longest=500)
    for top, tokens in ((2, 1), (0, 12)):  # the second time the prompts are in the prefix cache
        sampling = {"max_tokens": tokens, "ignore_eos": True, **never(binding.tags)}
        answers = random_host.generate(prompts, **sampling, **asking(top))
        without = [check_scores(model, binding, p, a, top) for p, a in zip(prompts, answers, strict=True)]
        assert min(without) >= 2  # the first token, and one after each block
        assert [len(answer.ids) for answer in answers] == [tokens] * len(prompts)
    assert not any(random_host.leftovers().values()), random_host.leftovers()


def test_scores_of_finished_turns_and_of_plain_prompts_side_by_side(
    host: Host, tiny: tuple[Any, Any], binding: Binding, problems: list[Problem]
) -> None:
    """Real transcripts in the model's own words; a plain prompt beside them; answers that fork again."""
    model, tokenizer = tiny
    first = [encode(tokenizer, problem) for problem in problems[:5]]
    turns = [answer.ids for answer in host.generate(first)]
    more = tokenizer.encode("\n")
    prompts = [p + t + more + encode(tokenizer, q) for p, t, q in zip(first, turns, problems[3:8], strict=True)]
    plain = encode(tokenizer, problems[8])
    asked = [{"logprobs": 1, "max_tokens": 60, **asking(top)} for top in range(6)]
    requests = list(zip([*prompts, plain], asked, strict=True))
    for (prompt, _), answer, top in zip(requests, host.generate_each(requests), range(6), strict=True):
        holes = check_scores(model, binding, prompt, answer, top)
        transcript = parse_ids(prompt, binding)
        scores = [None if math.isnan(value) else value for value in rate(model, prompt, layout(transcript))]
        assert holes == scores.count(None) == 1 + sum(block.parallel for block in transcript.walk())
        assert answer.ids
    assert not any(host.leftovers().values()), host.leftovers()


def test_a_prompt_that_ends_with_a_goal_is_scored_before_its_branches_answer(
    random_host: Host, random_model: Path, binding: Binding, tiny: tuple[Any, Any], never: Never
) -> None:
    model, _ = load(str(random_model))
    (before,) = structured_prompts(Random(43), binding, 1, longest=200)
    goal = tiny[1].encode("<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * 3 + "</Goal>")
    banned = [tag for tag in binding.tags if tag != binding.ids[Tag.PATH_CLOSE]]
    for prompt in (goal, before + goal):
        (answer,) = random_host.generate(
            [prompt], max_tokens=60, ignore_eos=True, logprobs=0, **never(banned), **asking(3)
        )
        check_scores(model, binding, prompt, answer, 3)
        assert answer.record is not None
        assert answer.record["branches"] == 3
        assert len(answer.ids) == 60
    assert not any(random_host.leftovers().values()), random_host.leftovers()


def test_scores_survive_scarce_memory(scarce_host: Host, tiny: tuple[Any, Any], binding: Binding, never: Never) -> None:
    """Trees that are replayed while their prompt is computed, or after."""
    model, _ = tiny
    prompts = structured_prompts(Random(44), binding, 8, longest=400)
    before = scarce_host.counters()["replays"]
    banned = never([*binding.tags, *tiny[1].all_special_ids])
    answers = scarce_host.generate(prompts, max_tokens=150, ignore_eos=True, **banned, **asking(1))
    for prompt, answer in zip(prompts, answers, strict=True):
        check_scores(model, binding, prompt, answer, 1)
    assert scarce_host.counters()["replays"] > before
    assert not any(scarce_host.leftovers().values()), scarce_host.leftovers()


def test_scores_of_prompts_that_are_cut_into_chunks(
    random_host: Any, random_model: Path, binding: Binding, never: Never
) -> None:
    """Chunks end anywhere in a part; SGLang in one pass and by replay."""
    model, _ = load(str(random_model))
    prompts = structured_prompts(Random(46), binding, 4, longest=300)
    sampling = {"max_tokens": 2, "ignore_eos": True, **never(binding.tags)}
    for single_pass in (None,) if VLLM else (True, False):
        if VLLM:
            scheduler, before = random_host.scheduler, random_host.scheduler.max_num_scheduled_tokens
            scheduler.max_num_scheduled_tokens = 37
        else:
            before = random_host.configure(chunked_prefill_size=37, single_pass=single_pass)
        for top in (1, 0):
            for prompt, answer in zip(prompts, random_host.generate(prompts, **sampling, **asking(top)), strict=True):
                check_scores(model, binding, prompt, answer, top)
        if VLLM:
            scheduler.max_num_scheduled_tokens = before
        else:
            random_host.configure(**before)


@pytest.mark.skipif(VLLM, reason="vLLM scores whole prompts")
def test_scores_from_a_token_on_and_of_chosen_tokens(random_host: Any, random_model: Path, binding: Binding) -> None:
    """SGLang's `logprob_start_len`, wherever in a block it lies, and `token_ids_logprob`."""
    model, _ = load(str(random_model))
    rng = Random(45)
    never = dict.fromkeys(binding.tags, -100.0)
    for prompt in structured_prompts(rng, binding, 3, longest=300):
        for start in (1, *sorted(rng.sample(range(len(prompt)), 5)), len(prompt) - 1):
            sampling = {"logprob_token_ids": CHOSEN, "max_tokens": 2, "ignore_eos": True, "logit_bias": never}
            (answer,) = random_host.generate([prompt], **sampling, **asking(2, start))
            check_scores(model, binding, prompt, answer, 2, tuple(CHOSEN), start)


@pytest.mark.skipif(VLLM, reason="vLLM samples at least one token")
def test_a_prompt_is_scored_without_an_answer(host: Any, tiny: tuple[Any, Any], binding: Binding) -> None:
    """SGLang's `max_new_tokens` of 0, as without blocks: scores, and not one token."""
    goal = tiny[1].encode("<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * 2 + "</Goal>")
    prompts = structured_prompts(Random(47), binding, 2, longest=200)
    for prompt in (*prompts, prompts[0] + goal, goal, prompts[0][:2]):
        (answer,) = host.generate([prompt], max_tokens=0, **asking(1))
        check_scores(tiny[0], binding, prompt, answer, 1)
        assert answer.ids == []
        assert answer.finish_reason == "length"
    assert not any(host.leftovers().values()), host.leftovers()
