"""What is reported beside the tokens: logprobs of as many others as each client asked for, whoever is beside it."""

from __future__ import annotations

from importlib.util import find_spec
from random import Random
from typing import Any

import pytest
import torch
from answer import Answer, Host
from test_answers import TOLERANCE, compare, encode

from multiverse import Binding, parse_ids
from multiverse.attention import additive, dense_mask, positions
from multiverse.models.task import Problem, generate
from multiverse.structure.layout import layout

VLLM = find_spec("vllm") is not None
WIDTHS = (1, 5, None, 0, 3)
CHOSEN = [7, 9, 11, 13]
"""Tokens whose logprobs are asked for by id."""


def dense_logprobs(model: Any, binding: Binding, prompt: list[int], ids: list[int]) -> torch.Tensor:
    """`[len(ids), vocabulary]`: by one forward over prompt and answer, what every token of it was sampled from."""
    transcript = parse_ids(prompt + ids, binding)
    found = layout(transcript)
    mask = additive(dense_mask(found))[None, None]
    logits = model(torch.tensor([transcript.ids]), attention_mask=mask, position_ids=positions(found)[None]).logits[0]
    return logits.log_softmax(-1)[torch.tensor(found.predecessors[len(prompt) :])]


def wrong(answer: Answer, expected: torch.Tensor, wanted: int | list[int]) -> list[int]:
    """Where in `answer` what is reported is not what was asked for: the token's logprob and the `wanted` largest, or
    those of the `wanted` tokens; of what the engine wrote, a logprob of 0."""
    assert answer.entries is not None
    assert len(answer.entries) == len(answer.ids)
    found = []
    for at, (token, entries) in enumerate(zip(answer.ids, answer.entries, strict=True)):
        if entries[token] == 0:
            continue
        tokens = expected[at].topk(wanted).indices.tolist() if isinstance(wanted, int) else wanted
        values = sorted(expected[at, list({token, *tokens})].tolist())
        close = [abs(a - b) < TOLERANCE for a, b in zip(sorted(entries.values()), values, strict=False)]
        if len(entries) != len(values) or not all(close):
            found.append(at)
    return found


def test_each_gets_as_many_logprobs_as_it_asked_for_whatever_others_ask_for(
    host: Host, tiny: tuple[Any, Any], binding: Binding
) -> None:
    """The rows of a batch are as wide as its widest request wants them."""
    prompt = encode(tiny[1], generate(Random(3), "flat", 4, held_out=True))
    plain = encode(tiny[1], generate(Random(3), "single", held_out=True))
    widths = (*WIDTHS, -1) if VLLM else WIDTHS
    mixed = [(asked, {"logprobs": width}) for width in widths for asked in (prompt, plain)]
    mixed.append((plain, {"logprobs": 4, "multiverse": {"enabled": False}}))
    alone = [(prompt, {"logprob_token_ids": CHOSEN}), (prompt, {"logprob_token_ids": CHOSEN[:2]}), (prompt, {})]
    if not VLLM:
        alone, mixed = [], mixed + alone
    (reference,) = host.generate([prompt])
    for requests in (mixed, alone, [(prompt, {"logprobs": width}) for width in widths[-1:]]):
        for (asked, sampling), answer in zip(requests, host.generate_each(requests), strict=True):
            expected = dense_logprobs(tiny[0], binding, asked, answer.ids)
            wanted = sampling.get("logprobs", sampling.get("logprob_token_ids"))
            assert (answer.ids == reference.ids) is (asked is prompt)
            if wanted is not None:
                wanted = expected.shape[1] if wanted == -1 else wanted
                assert not wrong(answer, expected, wanted), sampling
    assert not any(host.leftovers().values()), host.leftovers()


def test_no_logprob_is_lost_when_trees_are_replayed(
    scarce_host: Host, tiny: tuple[Any, Any], binding: Binding, problems: list[Problem]
) -> None:
    """What the engine wrote has none, and nothing else: siblings had sampled in the step that gave their tree up."""
    model, tokenizer = tiny
    prompts = [encode(tokenizer, problem) for problem in problems if problem.forks]
    before = scarce_host.counters()["replays"]
    answers = scarce_host.generate(prompts, logprobs=1, multiverse={"return_tree": True})
    assert scarce_host.counters()["replays"] > before
    for prompt, answer in zip(prompts, answers, strict=True):
        assert compare(binding, model, prompt, answer).max_difference < TOLERANCE
        assert answer.logprobs is not None
        assert answer.record is not None
        told = [value for strand in answer.record["tree"] for value in strand["logprobs"]]
        assert told.count(None) == answer.record["injected_tokens"]
        assert sorted(value or 0.0 for value in told) == sorted(answer.logprobs)
    assert not any(scarce_host.leftovers().values()), scarce_host.leftovers()


@pytest.mark.skipif(not VLLM, reason="vLLM reports views of a matrix of the whole step; SGLang lists")
def test_only_rows_that_were_not_shown_yet_are_kept_and_nothing_else_of_their_steps(
    host: Any, tiny: tuple[Any, Any]
) -> None:
    forks = encode(tiny[1], generate(Random(3), "flat", 4, held_out=True))
    plain = encode(tiny[1], generate(Random(3), "single", held_out=True))
    host.start(plain, logprobs=5)
    host.start(forks, logprobs=2)
    most = 0
    while host.leftovers()["requests"]:
        host.step()
        trees = {id(member.tree): member.tree for member in host.scheduler.trees.members.values()}
        for tree in trees.values():
            rows = [row for known in tree.rows._rows.values() for row in known.values()]
            assert not tree.rows._values, "nobody asked for the tree"
            assert not rows or tree.controller.root.forks, "until it forks, vLLM answers by itself"
            assert all(part.base is None and len(part) == 3 for ids, values, _ in rows for part in (ids, values))
            written = sum(end - start for _, start, end in tree.controller.root.spans())
            assert len(rows) <= written - tree.stream.shown
            most = max(most, len(rows))
    assert most > 0
