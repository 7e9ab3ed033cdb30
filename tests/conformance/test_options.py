"""What a client may ask for: caps, strict structure, several answers, penalties, the tree; and what it is told."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from answer import Host

from multiverse import Binding, Tag, parse_ids
from multiverse.attention import additive, dense_mask, positions
from multiverse.decoding.document import statistics
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import load
from multiverse.structure.layout import layout


@pytest.fixture
def flat(tiny: tuple[Any, Any]) -> list[int]:
    """A prompt that makes the model fork four branches."""
    return list(tiny[1].encode(turn(generate(Random(3), "flat", 4, held_out=True))))


@pytest.fixture
def nested(tiny: tuple[Any, Any]) -> list[int]:
    """A prompt that makes the model nest."""
    return list(tiny[1].encode(turn(generate(Random(2), "nested", 2, held_out=True))))


@pytest.mark.parametrize(("cap", "reason"), [({"max_branches": 3}, "too_wide"), ({"max_depth": 0}, "too_deep")])
def test_a_block_beyond_a_cap_goes_on_sequentially_and_the_reason_is_told(
    host: Host, flat: list[int], cap: dict[str, int], reason: str
) -> None:
    (answer,) = host.generate([flat], multiverse=cap)
    assert answer.record is not None
    assert answer.record["fallbacks"] == {reason: 1}
    assert answer.record["branches"] == 0
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_with_fewer_branches_at_once_the_answer_is_the_same(host: Host, nested: list[int], parallel: int) -> None:
    expected = host.generate([nested])[0].ids
    assert host.generate([nested], multiverse={"max_parallel": parallel})[0].ids == expected


def test_the_critical_path_is_bounded_exactly(host: Host, binding: Binding, flat: list[int]) -> None:
    for budget in (30, 60, 90):
        (answer,) = host.generate([flat], multiverse={"max_critical_path": budget})
        transcript = parse_ids(flat + answer.ids, binding)
        assert layout(transcript).critical_path(len(flat)) <= budget
        assert answer.finish_reason == "length"


def test_the_tree_says_which_tokens_each_branch_has_and_where(host: Host, binding: Binding, nested: list[int]) -> None:
    (answer,) = host.generate([nested], logprobs=1, multiverse={"return_tree": True})
    record = answer.record
    assert record is not None
    transcript = parse_ids(nested + answer.ids, binding)
    figures = statistics(transcript, len(nested))
    assert record["tokens"] == len(answer.ids) == sum(len(strand["token_ids"]) for strand in record["tree"])
    assert record["critical_path_tokens"] == figures.critical_path
    assert (record["blocks"], record["max_width"], record["depth"]) == (figures.blocks, figures.max_width, 2)
    assert record["branches"] == len(record["tree"]) - 1
    positions = [position for strand in record["tree"] for position in strand["positions"]]
    assert sorted(positions) == sorted(layout(transcript).positions[len(nested) :])
    for strand in record["tree"]:
        assert len(strand["token_ids"]) == len(strand["positions"]) == len(strand["logprobs"])
        if strand["parent"] is not None:
            assert strand["finish_reason"] == "path_close"
            assert 0 <= strand["started"] <= strand["closed"]
    sampled = [value for strand in record["tree"] for value in strand["logprobs"] if value is not None]
    assert len(sampled) == record["tokens"] - record["injected_tokens"]


def test_a_request_without_blocks_is_told_nothing(host: Host, tiny: tuple[Any, Any]) -> None:
    prompt = tiny[1].encode(turn(generate(Random(3), "single", held_out=True)))
    assert host.generate([prompt])[0].record is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_branches": 0}, "max_branches must be an integer >= 1, got 0"),
        ({"max_branches": 65}, "max_branches must be at most 64 on this server, got 65"),
        ({"structure": "loose"}, "structure must be 'lenient' or 'strict', got 'loose'"),
        ({"structure": "strict"}, "--multiverse-structure strict"),
        ({"widht": 3}, "multiverse has no 'widht'; it has enabled"),
        ({"enabled": "yes"}, "enabled must be true or false, got 'yes'"),
        (["max_branches"], "multiverse must be an object, got list"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_field_is_refused_with_what_is_allowed_and_the_host_lives(
    host: Host, flat: list[int], options: Any, complaint: str
) -> None:
    with pytest.raises(ValueError, match=r"(?s).*") as refused:
        host.generate([flat], multiverse=options)
    assert complaint in str(refused.value)
    assert host.generate([flat], max_tokens=5)[0].finish_reason == "length"


def test_a_stop_string_in_a_branch_ends_that_branch_and_in_the_root_the_request(
    host: Host, tiny: tuple[Any, Any], flat: list[int]
) -> None:
    """SEMANTICS 4. The token that completes it is dropped, as the end of sequence is."""
    (whole,) = host.generate([flat], multiverse={"return_tree": True})
    assert whole.record is not None
    branches = [tiny[1].decode(strand["token_ids"]) for strand in whole.record["tree"][1:]]
    stop = next(text for text in (f"= {n} " for n in range(10, 40)) if sum(text in branch for branch in branches) == 1)
    (answer,) = host.generate([flat], stop=[stop], multiverse={"return_tree": True})
    assert answer.record is not None
    for before, strand in zip(branches, answer.record["tree"][1:], strict=True):
        text = tiny[1].decode(strand["token_ids"])
        assert strand["finish_reason"] == ("stop" if stop in before else "path_close")
        assert stop not in text
        assert (text == before) is (stop not in before)
    assert answer.finish_reason == "stop"
    assert "<Conclusion>" in tiny[1].decode(answer.ids)
    (short,) = host.generate([flat], stop=["Answer"])
    assert "<Conclusion>" in tiny[1].decode(short.ids)
    assert len(short.ids) < len(whole.ids)
    assert not any(host.leftovers().values()), host.leftovers()


def test_several_answers_to_one_prompt_differ_and_come_again_with_the_same_seed(host: Host, flat: list[int]) -> None:
    sampling = {"n": 3, "temperature": 2.0, "seed": 4, "max_tokens": 300}
    several = [answer.ids for answer in host.generate([flat], **sampling)]
    assert len({tuple(ids) for ids in several}) == 3
    assert [answer.ids for answer in host.generate([flat], **sampling)] == several
    assert not any(host.leftovers().values()), host.leftovers()


def forking(binding: Binding, tokenizer: Any) -> tuple[list[int], dict[int, float]]:
    """A prompt behind which two branches are forked at once, and a bias under which nothing says a tag of its own."""
    prompt = tokenizer.encode("<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n<Outline>\n2: x\n</Outline>\n</Goal>")
    close, conclude = binding.ids[Tag.PATH_CLOSE], binding.ids[Tag.CONCLUSION_CLOSE]
    banned = [token for token in [*binding.tags, *tokenizer.all_special_ids] if token not in (close, conclude)]
    return prompt, dict.fromkeys(banned, -100.0) | {close: 9.0, conclude: -100.0}


GREEDY = {"temperature": 0.0, "top_p": 0.001, "top_k": 1, "min_p": 1.0}
ONE = {"temperature": 1.0, "top_k": 1}
HOT = {"temperature": 2.0, "seed": 4}


@pytest.mark.parametrize(
    ("outside", "in_branches", "sampled"),
    [
        (GREEDY, {"temperature": 2}, True),
        (GREEDY, {"temperature": 2, "top_k": 1}, False),
        (GREEDY, {"top_k": 50}, False),
        (ONE, {"temperature": 2}, True),
        (ONE, {"top_k": 50}, False),
        (HOT, {"temperature": 0}, False),
        (HOT | {"n": 2}, {"temperature": 0}, False),
        (HOT, {"top_k": 1}, False),
        (HOT, {"top_k": 1 << 30}, True),
        (HOT | {"top_k": 1}, {}, False),
    ],
)
def test_greedy_requests_with_hot_branches_and_back_by_one_rule(
    random_host: Host,
    binding: Binding,
    tiny: tuple[Any, Any],
    outside: dict[str, Any],
    in_branches: dict[str, float],
    sampled: bool,
) -> None:
    """Whether branches say what they say if everything is greedy."""
    prompt, bias = forking(binding, tiny[1])

    def branches(changed: dict[str, float], **sampling: Any) -> list[list[list[int]]]:
        sampling["multiverse"] = {"return_tree": True, "branch_sampling": changed}
        answers = random_host.generate([prompt], max_tokens=60, logit_bias=bias, ignore_eos=True, **sampling)
        return [[strand["token_ids"] for strand in (answer.record or {})["tree"][1:]] for answer in answers]

    (expected,) = branches({})
    assert len(expected) == 2
    assert all((found != expected) is sampled for found in branches(in_branches, **outside))


@pytest.mark.skipif(find_spec("sglang") is None, reason="a limit of SGLang's")
def test_min_p_in_branches_is_refused_where_sglang_would_fail_at_it(host: Host, flat: list[int]) -> None:
    """SGLang's engines of this suite keep seeds."""
    with pytest.raises(ValueError, match="no min_p under --enable-deterministic-inference"):
        host.generate([flat], multiverse={"branch_sampling": {"temperature": 1.0, "min_p": 0.5}})
    assert host.generate([flat], multiverse={"branch_sampling": {"min_p": 0}})[0].finish_reason == "stop"


def test_a_penalty_counts_what_the_token_sees_of_what_was_generated(
    random_host: Host, random_model: Path, binding: Binding, tiny: tuple[Any, Any]
) -> None:
    """Every sampled token is the likeliest one after the penalty, with the text before the fork, the branch's own
    and, after the join, that of all branches counted."""
    model, _ = load(str(random_model))
    penalty = 1.5
    prompt, bias = forking(binding, tiny[1])
    sampling = {"max_tokens": 60, "logit_bias": bias, "frequency_penalty": penalty, "ignore_eos": True}
    (answer,) = random_host.generate([prompt], logprobs=1, **sampling)
    assert answer.logprobs is not None
    transcript = parse_ids(prompt + answer.ids, binding)
    found = layout(transcript)
    mask = dense_mask(found)
    logits = model(
        torch.tensor([transcript.ids]), attention_mask=additive(mask)[None, None], position_ids=positions(found)[None]
    ).logits[0]
    for token, value in bias.items():
        logits[:, token] += value
    (block,) = transcript.walk()
    assert len(block.paths) == 2
    assert block.conclusion is not None
    sampled = [at for at, value in enumerate(answer.logprobs, len(prompt)) if value < 0]
    assert sum(at > block.conclusion.start for at in sampled) > 5
    for at in sampled:
        before = found.predecessors[at]
        seen = [transcript.ids[i] for i in range(len(prompt), before + 1 - random_host.penalty_lag) if mask[before, i]]
        counts = torch.bincount(torch.tensor(seen, dtype=torch.int64), minlength=logits.shape[1])
        assert int((logits[before] - penalty * counts).argmax()) == transcript.ids[at], at - len(prompt)


def test_under_strict_structure_even_random_weights_write_only_what_is_well_formed(
    strict_host: Host, binding: Binding, tiny: tuple[Any, Any]
) -> None:
    """Tags are made likely, so that without the mask nearly every answer would break the grammar."""
    likely = dict.fromkeys(binding.tags, 4.0) | dict.fromkeys(tiny[1].all_special_ids, -100.0)
    options = {"temperature": 1.5, "max_tokens": 300, "logit_bias": likely, "ignore_eos": True}
    prompt = tiny[1].encode("Find A.")
    strict = [answer.ids for answer in strict_host.generate([prompt], seed=0, n=12, **options)]
    broken = [parse_ids(prompt + ids, binding).violations for ids in strict]
    assert not [violation for found in broken for violation in found if violation.found != "end of text"]
    assert sum(bool(parse_ids(prompt + ids, binding).blocks) for ids in strict) > 6
    lenient = strict_host.generate([prompt] * 12, seed=1, multiverse={"structure": "lenient"}, **options)
    assert any(parse_ids(prompt + answer.ids, binding).violations for answer in lenient)
    assert not any(strict_host.leftovers().values()), strict_host.leftovers()
