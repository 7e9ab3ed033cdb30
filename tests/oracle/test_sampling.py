"""Sampling means what it means in transformers; seeds reproduce; limits hold; what can't be spliced is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, SIZE, llama, qwen3
from toy import BINDINGS, DIALECTS, TOKENIZERS, encode, goal
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.generation import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from multiverse import Limits, Status, UnsupportedModelError
from multiverse.oracle import Decoder, Generation, Sampling, check, generate

PROMPT = "ab" + goal(3)


def answers(prompts: list[str], model: Any = None, tokens: int = 120, **options: Any) -> list[Generation]:
    model = model or qwen3()
    limits = options.pop("limits", None) or Limits(max_tokens=tokens)
    return generate(model, TOKENIZERS["multiverse"], prompts, limits=limits, **options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_what_transformers_generates(family: str, penalty: float) -> None:
    """For a request without blocks, token by token, also with a repetition penalty."""
    model, prompt = FAMILIES[family](), "abc"
    (ours,) = answers([prompt], model, tokens=30, repetition_penalty=penalty, limits=Limits(max_tokens=30, max_depth=0))
    theirs = model.generate(
        torch.tensor([encode(prompt)]), do_sample=False, max_new_tokens=30, repetition_penalty=penalty, pad_token_id=0
    )
    assert ours.ids == theirs[0, len(encode(prompt)) :].tolist()
    assert ours.statistics.tokens == len(ours.ids)


def test_parameters_are_transformers_own_processors_in_its_order() -> None:
    """Scores after all of them are those of the same chain built by hand."""
    logits, context = torch.randn(1, 48, generator=torch.Generator().manual_seed(3)) * 3, torch.tensor([[3, 4, 5, 5]])
    ours = Sampling(do_sample=True, temperature=0.7, top_k=20, top_p=0.8, min_p=0.01, repetition_penalty=1.3)
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            *(TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.8), MinPLogitsWarper(0.01)),
        ]
    )
    assert torch.equal(ours.processors()(context, logits.clone()), theirs(context, logits.clone()))


@pytest.mark.parametrize(
    ("parameters", "kept"), [({"top_k": 3}, 3), ({"top_p": 1e-6}, 1), ({"min_p": 1.0}, 1), ({"temperature": 1e-3}, 1)]
)
def test_each_parameter_narrows_what_can_be_picked(parameters: dict[str, Any], kept: int) -> None:
    logits = torch.randn(48, generator=torch.Generator().manual_seed(5))
    best = set(logits.topk(kept).indices.tolist())
    sampling, generator = Sampling(do_sample=True, **parameters), torch.Generator().manual_seed(0)
    picked = {sampling.pick(logits, [], generator, sampling.processors()) for _ in range(100)}
    assert picked == best


def test_a_repetition_penalty_sees_what_the_strand_sees() -> None:
    """The prompt, the separator and its own tokens; not its siblings."""
    decoder = Decoder(qwen3(), BINDINGS["multiverse"])
    request = decoder.add(encode(PROMPT), Limits(max_tokens=100), Sampling(do_sample=True, repetition_penalty=1.2))
    seen = 0
    while decoder.busy:
        decoder.step()
        for child in request.controller.root.walk():
            if child.status is Status.RUNNING and len(child.key) == 2 and not child.forks:
                assert request.context(child) == encode(PROMPT + "\n") + child.tokens
                seen += 1
    assert seen > 3


def test_sampling_parameters_out_of_range_are_refused_by_transformers() -> None:
    with pytest.raises(ValueError, match="temperature"):
        Sampling(do_sample=True, temperature=-1.0)
    with pytest.raises(ValueError, match="top_p"):
        Sampling(do_sample=True, top_p=-0.5)


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="top_z"):
        answers(["a"], top_z=3)


def test_seeds_reproduce_and_matter() -> None:
    """Same seed, same answer; another seed, another answer; branches of one request do not echo each other."""
    first, again, other = (
        answers([PROMPT], do_sample=True, temperature=1.5, seed=seed, tokens=90)[0] for seed in (1, 1, 2)
    )
    assert first.ids == again.ids
    assert first.ids != other.ids
    bodies = [tuple(first.transcript.ids[p.start + 3 : p.end]) for p in first.transcript.blocks[0].paths]
    assert len(set(bodies)) == 3


def test_a_request_in_a_batch_samples_what_it_samples_alone() -> None:
    prompts = [PROMPT, "abc", "a" + goal(2) + "\n", "ab"]
    together = answers(prompts, do_sample=True, seed=4, tokens=80)
    for prompt, batched in zip(prompts, together, strict=True):
        (alone,) = answers([prompt], do_sample=True, seed=4, tokens=80)
        assert batched.ids == alone.ids


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("separators", ["overlap", "advance"])
def test_freely_sampled_answers_agree_with_the_check(dialect: str, separators: str) -> None:
    """No script: whatever a random model says after a goal, malformed or not."""
    prompts = ["ab" + goal(3, dialect), "c" + goal(2, dialect) + "\n", "abc"]
    model, join = llama(), "prefill" if dialect == "threadweaver" else "splice"
    done = generate(
        *(model, TOKENIZERS[dialect], prompts),
        dialect=dialect,
        limits=Limits(max_tokens=100),
        separators=separators,
        **{"do_sample": True, "temperature": 1.5, "repetition_penalty": 1.1, "seed": 11},
    )
    checked_as = "advance" if dialect == "threadweaver" else separators
    results = [check(g.transcript, model, separators=checked_as, join=join) for g in done]
    assert max(result.max_difference for result in results) <= 1e-4
    assert max(result.causal_difference for result in results[:2]) > 0.1
    assert all(result.compared > 0 for result in results)


def test_limits_are_respected() -> None:
    """Tokens, positions and running branches; a token budget is used up to the last token."""
    limits = Limits(max_tokens=90, max_critical_path=50, max_parallel=2)
    for done in answers([PROMPT, "abc"], limits=limits, do_sample=True, seed=3, temperature=2.0):
        assert done.statistics.tokens <= 90
        assert done.statistics.critical_path <= 50
        assert done.finish_reason in ("stop", "length")
    (endless,) = answers([PROMPT], tokens=77, do_sample=True, seed=3)
    assert endless.finish_reason == "stop" or len(endless.ids) == 77


def test_depth_zero_decodes_sequentially() -> None:
    (done,) = answers([PROMPT], limits=Limits(max_tokens=40, max_depth=0))
    assert done.statistics.parallel_blocks == 0
    assert done.statistics.critical_path == done.statistics.tokens


def test_an_answer_carries_text_ids_and_figures() -> None:
    (done,) = answers([PROMPT], tokens=60)
    assert done.text == TOKENIZERS["multiverse"].decode(done.ids)
    assert done.transcript.ids == encode(PROMPT) + done.ids
    assert done.text.startswith("\n<Path>\n1:")
    assert done.statistics.parallel_degree > 1


def test_a_model_with_a_sliding_window_is_refused_by_name() -> None:
    """Its KV can't be spliced; saying so beats wrong answers."""
    config = Qwen3Config(**SIZE, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(UnsupportedModelError, match="sliding_attention"):
        Decoder(Qwen3ForCausalLM(config), BINDINGS["multiverse"])


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        answers([""])
