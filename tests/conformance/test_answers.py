"""What a host answers is what a block means: the oracle's answer, token by token."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from answer import Answer, Host
from prompts import structured_prompts

from multiverse import Binding, Limits, Tag, parse_ids
from multiverse.models.task import Problem, generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import CheckResult, check, load
from multiverse.oracle import generate as reference

TOLERANCE = 1e-4


def compare(binding: Binding, model: Any, prompt: list[int], answer: Answer) -> CheckResult:
    """The reported logprobs against one dense-mask forward; what the engine wrote itself has none."""
    assert answer.logprobs is not None
    sampled = [value if value < 0 else None for value in answer.logprobs]
    return check(parse_ids(prompt + answer.ids, binding), model, [None] * len(prompt) + sampled)


def encode(tokenizer: Any, problem: Problem) -> list[int]:
    return list(tokenizer.encode(turn(problem)))


@pytest.mark.every_mode
def test_answers_are_the_oracles_and_so_are_their_logprobs(
    host: Host, tiny: tuple[Any, Any], binding: Binding, problems: list[Problem]
) -> None:
    model, tokenizer = tiny
    prompts = [encode(tokenizer, problem) for problem in problems]
    before = host.counters()
    answers = host.generate(prompts, logprobs=1)
    expected = reference(model, tokenizer, prompts, limits=Limits(max_tokens=800))
    assert [answer.ids for answer in answers] == [answer.ids for answer in expected]
    assert [answer.finish_reason for answer in answers] == ["stop"] * len(answers)
    results = [compare(binding, model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    assert max(result.max_difference for result in results) < TOLERANCE
    assert max(result.causal_difference for result in results) > 0.1
    assert host.counters()["joins"] - before["joins"] >= len(problems)
    assert not any(host.leftovers().values()), host.leftovers()


@pytest.mark.every_mode
def test_no_token_is_computed_twice(host: Host, late: bool, tiny: tuple[Any, Any]) -> None:
    """I2: what is scheduled is prompt and completion, but for the last token, which nothing follows.

    And on vLLM, for each branch, its parent's last two tokens: it has its own copy of the block that these are in.
    """
    rng = Random(3)
    for kind in ("single", "flat", "nested"):
        prompt = encode(tiny[1], generate(rng, kind, held_out=True))  # type: ignore[arg-type]
        cached = len(prompt) // 32 * 32  # the prompt may be in the prefix cache from another test
        before = host.counters()["scheduled"]
        (answer,) = host.generate([prompt])
        scheduled = host.counters()["scheduled"] - before
        needed = len(prompt) + len(answer.ids) - 1
        heads = answer.record["branches"] * max(0, host.head_tokens - late) if answer.record else 0
        assert needed - cached <= scheduled <= needed + late + heads  # late: one is under way when the answer ends


FEW, MANY = ((2, -2.0), (6, 1.0)), ((3, 2.0), (16, 4.0))
"""How many branches, and how much sooner than by chance they end."""
LENGTHS = {31: MANY, 32: FEW, 33: MANY, 63: FEW}
"""Tokens up to the goal's end, modulo 64: on both sides of a block boundary."""


@pytest.fixture(scope="module")
def branched(
    random_host: Host, random_model: Path, binding: Binding
) -> dict[tuple[int, int], tuple[list[int], Answer]]:
    """Prompts and answers by length and width, all decoded at the same time."""
    _, tokenizer = load(str(random_model))
    banned = [binding.ids[tag] for tag in Tag if tag is not Tag.PATH_CLOSE] + tokenizer.all_special_ids
    bans = dict.fromkeys(banned, -100.0)
    common = {"temperature": 1.0, "max_tokens": 620, "logprobs": 1, "ignore_eos": True}
    requests: dict[tuple[int, int], tuple[list[int], dict[str, Any]]] = {}
    for length, blocks in LENGTHS.items():
        rng = Random(length)
        for width, bias in blocks:
            outlines = "".join(f"<Outline>\n{i}: x\n</Outline>\n" for i in range(1, width + 1))
            goal = tokenizer.encode(f"<Parallel>\n<Goal>\n{outlines}</Goal>")
            text = [rng.randrange(100) for _ in range((length - len(goal)) % 64)]
            close = {binding.ids[Tag.PATH_CLOSE]: bias}
            requests[length, width] = text + goal, {**common, "seed": width, "logit_bias": bans | close}
    answers = random_host.generate_each(list(requests.values()))
    assert not any(random_host.leftovers().values()), random_host.leftovers()
    prompts = (prompt for prompt, _ in requests.values())
    return dict(zip(requests, zip(prompts, answers, strict=True), strict=True))


@pytest.mark.undrafted
@pytest.mark.parametrize("length", LENGTHS)
def test_branches_of_any_width_and_length_agree_with_the_dense_forward(
    branched: dict[tuple[int, int], tuple[list[int], Answer]], random_model: Path, binding: Binding, length: int
) -> None:
    """I3: random weights, 2 to 16 branches of 0 to 200 tokens, goals on both sides of a block boundary."""
    model, _ = load(str(random_model))
    for width, _ in LENGTHS[length]:
        prompt, answer = branched[length, width]
        tree = parse_ids(prompt + answer.ids, binding)
        assert [len(block.paths) for block in tree.walk()] == [width]
        result = compare(binding, model, prompt, answer)
        assert result.max_difference < TOLERANCE
        assert result.causal_difference > 0.1


def test_a_follow_up_turn_sees_the_blocks_of_the_turn_before(
    host: Host, tiny: tuple[Any, Any], binding: Binding, problems: list[Problem]
) -> None:
    """A prompt that holds blocks is computed as it was decoded, at the right positions, not causally."""
    model, tokenizer = tiny
    half = min(6, len(problems) // 2)
    first = [encode(tokenizer, problem) for problem in problems[:half]]
    turns = [answer.ids for answer in host.generate(first)]
    prompts = [
        p + t + tokenizer.encode("\n") + encode(tokenizer, q)
        for p, t, q in zip(first, turns, problems[half:], strict=False)
    ]
    answers = host.generate(prompts, logprobs=1, max_tokens=120)
    results = [compare(binding, model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    assert max(result.max_difference for result in results) < TOLERANCE
    assert max(result.causal_difference for result in results) > 0.1
    assert not any(host.leftovers().values()), host.leftovers()


@pytest.mark.undrafted
def test_branches_that_end_with_the_end_of_the_turn_are_closed_and_read_as_closed(
    random_host: Host, random_model: Path, binding: Binding
) -> None:
    """SEMANTICS 4: the end-of-sequence token is no part of the branch; a path-close is written in its place."""
    model, tokenizer = load(str(random_model))
    goal = tokenizer.encode("<Parallel>\n<Goal>\n" + "<Outline>\n1: x\n</Outline>\n" * 3 + "</Goal>")
    bias = dict.fromkeys(binding.tags, -100.0) | {tokenizer.eos_token_id: 2.0}
    ended = 0
    options = {"temperature": 1.0, "max_tokens": 300, "logprobs": 1, "logit_bias": bias}
    options["multiverse"] = {"return_tree": True}
    for answer in random_host.generate_each([(goal, {**options, "seed": seed}) for seed in range(4)]):
        assert answer.record is not None
        ended += [strand["finish_reason"] for strand in answer.record["tree"][1:]].count("stop")
        assert tokenizer.eos_token_id not in answer.ids[:-1]
        assert compare(binding, model, goal, answer).max_difference < TOLERANCE
    assert ended > 6


@pytest.mark.undrafted
def test_blocks_in_a_prompt_of_any_shape_and_alignment_are_computed_as_they_were_decoded(
    random_host: Host, random_model: Path, binding: Binding
) -> None:
    """Nested blocks whose forks and joins lie anywhere within KV blocks: three levels, paths of 0 to 40 tokens."""
    model, _ = load(str(random_model))
    prompts = structured_prompts(Random(8), binding, 16)
    never = dict.fromkeys(binding.tags, -100.0)
    for _ in range(2):  # the second time much of it is found in the prefix cache
        answers = random_host.generate(prompts, max_tokens=12, logprobs=1, ignore_eos=True, logit_bias=never)
        results = [compare(binding, model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        assert max(result.max_difference for result in results) < TOLERANCE
        assert min(result.causal_difference for result in results) > 0.1
    assert not any(random_host.leftovers().values()), random_host.leftovers()


@pytest.mark.every_mode
def test_a_follow_up_turn_finds_the_spliced_kv_and_a_plain_request_does_not(
    host: Host, tiny: tuple[Any, Any], binding: Binding
) -> None:
    """I4. The plain request repeats the tokens of the turn; it gets the logits of a causal forward."""
    model, tokenizer = tiny
    rng = Random(77)
    first = encode(tokenizer, generate(rng, "flat", 6, held_out=True))
    prompt = first + host.generate([first])[0].ids + tokenizer.encode("\n")
    prompt += encode(tokenizer, generate(rng, "single", held_out=True))
    plain = host.generate([prompt], logprobs=1, max_tokens=8, multiverse={"enabled": False})[0]
    before = host.counters()
    again = host.generate([prompt], logprobs=1, max_tokens=8)[0]
    found = host.counters()["cached_tokens"] - before["cached_tokens"]
    scheduled = host.counters()["scheduled"] - before["scheduled"]
    assert found > 0.8 * len(first)
    assert scheduled <= len(prompt) - found + len(again.ids)
    assert compare(binding, model, prompt, again).max_difference < TOLERANCE
    assert abs(compare(binding, model, prompt, plain).max_difference) > 0.01
    assert causal_difference(model, prompt, plain) < TOLERANCE


def causal_difference(model: Any, prompt: list[int], answer: Answer) -> float:
    """The largest difference of the reported logprobs to one causal forward."""
    assert answer.logprobs is not None
    logits = model(torch.tensor([prompt + answer.ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = logits[torch.arange(len(answer.ids)), torch.tensor(answer.ids)]
    return float((torch.tensor(answer.logprobs) - expected).abs().max())


@pytest.mark.undrafted
def test_the_same_seed_gives_the_same_answer_and_another_one_another(host: Host, tiny: tuple[Any, Any]) -> None:
    prompt = encode(tiny[1], generate(Random(5), "flat", 4, held_out=True))
    answers = [host.generate([prompt], temperature=2.0, seed=seed, max_tokens=200)[0].ids for seed in (1, 1, 2)]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]
