"""What a host answers is what a block means: the oracle's answer, token by token."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from answer import Answer, Host

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


def test_no_token_is_computed_twice(host: Host, tiny: tuple[Any, Any]) -> None:
    """I2: what is scheduled is prompt and completion, but for the last token, which nothing follows."""
    rng = Random(3)
    for kind in ("single", "flat", "nested"):
        prompt = encode(tiny[1], generate(rng, kind, held_out=True))  # type: ignore[arg-type]
        cached = len(prompt) // 32 * 32  # the prompt may be in the prefix cache from another test
        before = host.counters()["scheduled"]
        (answer,) = host.generate([prompt])
        scheduled = host.counters()["scheduled"] - before
        assert len(prompt) + len(answer.ids) - 1 - cached <= scheduled <= len(prompt) + len(answer.ids) - 1


@pytest.mark.parametrize("length", [31, 32, 33, 63])
def test_branches_of_any_width_and_length_agree_with_the_dense_forward(
    random_host: Host, random_model: Path, binding: Binding, length: int
) -> None:
    """I3: random weights, 2 to 16 branches of 0 to 200 tokens, goals on both sides of a block boundary."""
    model, tokenizer = load(str(random_model))
    rng = Random(length)
    banned = [binding.ids[tag] for tag in Tag if tag is not Tag.PATH_CLOSE] + tokenizer.all_special_ids
    bans = dict.fromkeys(banned, -100.0)
    for width, bias in ((2, -2.0), (3, 2.0), (6, 1.0), (16, 4.0)):
        outlines = "".join(f"<Outline>\n{i}: x\n</Outline>\n" for i in range(1, width + 1))
        goal = tokenizer.encode(f"<Parallel>\n<Goal>\n{outlines}</Goal>")
        text = [rng.randrange(100) for _ in range((length - len(goal)) % 64)]
        prompt = text + goal
        close = {binding.ids[Tag.PATH_CLOSE]: bias}
        (answer,) = random_host.generate(
            [prompt], temperature=1.0, seed=width, max_tokens=620, logprobs=1, logit_bias=bans | close, ignore_eos=True
        )
        tree = parse_ids(prompt + answer.ids, binding)
        assert [len(block.paths) for block in tree.walk()] == [width]
        result = compare(binding, model, prompt, answer)
        assert result.max_difference < TOLERANCE
        assert result.causal_difference > 0.1
    assert not any(random_host.leftovers().values()), random_host.leftovers()


def test_a_follow_up_turn_sees_the_blocks_of_the_turn_before(
    host: Host, tiny: tuple[Any, Any], binding: Binding, problems: list[Problem]
) -> None:
    """A prompt that holds blocks is computed as it was decoded, at the right positions, not causally."""
    model, tokenizer = tiny
    first = [encode(tokenizer, problem) for problem in problems[:6]]
    turns = [answer.ids for answer in host.generate(first)]
    prompts = [
        p + t + tokenizer.encode("\n") + encode(tokenizer, q)
        for p, t, q in zip(first, turns, problems[6:], strict=False)
    ]
    answers = host.generate(prompts, logprobs=1, max_tokens=120)
    results = [compare(binding, model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    assert max(result.max_difference for result in results) < TOLERANCE
    assert max(result.causal_difference for result in results) > 0.1
    assert not any(host.leftovers().values()), host.leftovers()


def test_the_same_seed_gives_the_same_answer_and_another_one_another(host: Host, tiny: tuple[Any, Any]) -> None:
    prompt = encode(tiny[1], generate(Random(5), "flat", 4, held_out=True))
    answers = [host.generate([prompt], temperature=2.0, seed=seed, max_tokens=200)[0].ids for seed in (1, 1, 2)]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]
