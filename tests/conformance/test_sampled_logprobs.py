"""The log-probabilities of a tree are those of what was sampled from: after temperature, bias and penalties.

What a trainer can compute again, temperature, is compared with what its forward says. Bias and penalties are computed
here, from one forward over the whole answer and from what every token saw. Where hosts differ, each is right by its own
rule (docs/api.md), with and without the plugin: the order in which things are applied, which without SGLang's overlap
scheduler is that of a set, another one in another process; whether the repetition penalty counts the prompt; and the
overlap scheduler, which counts a token one step after it was sampled, and in the step where there is none yet the last
token of the prompt.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from answer import Host
from hosts import Engines
from test_options import forking

from multiverse import Binding
from multiverse.attention import additive, dense_mask, positions
from multiverse.oracle import load
from multiverse.training.rollouts import Reader, Rollout
from multiverse.training.rollouts.batch import mismatch

TOLERANCE = 1e-4
VLLM = find_spec("vllm") is not None
SETTINGS: dict[str, Any] = {"settings": {"logprobs_mode": "processed_logprobs"}}
"""Not the raw ones, which vLLM reports if it isn't told otherwise, and the suite's SGLang in place of its own."""
ADDITIVE = ("frequency_penalty", "presence_penalty")
PENALTIES = {
    "none": {},
    "frequency": {"frequency_penalty": 0.7},
    "presence": {"presence_penalty": 0.9},
    "repetition": {"repetition_penalty": 1.3},
    "all": {"frequency_penalty": -0.4, "presence_penalty": 0.9, "repetition_penalty": 1.3},
}


def rollout(host: Host, reader: Reader, prompt: list[int], **sampling: Any) -> Rollout:
    """One answer, with its tree."""
    options = sampling.pop("multiverse", {}) | {"return_tree": True}
    (answer,) = host.generate([prompt], logprobs=1, seed=3, multiverse=options, **sampling)
    found = reader.record(answer.record, prompt, "answer", "group")
    assert found.ids == [*prompt, *answer.ids]
    return found


@pytest.mark.parametrize("temperature", [0.6, 1.7])
@pytest.mark.parametrize("inside", [None, 1.2])
def test_a_trainers_forward_at_that_temperature_says_the_same(
    engines: Engines,
    random_model: Path,
    late: bool,
    page: int,
    tiny: tuple[Any, Any],
    binding: Binding,
    temperature: float,
    inside: float | None,
) -> None:
    """Also with branches at another one."""
    host, (model, _) = engines(str(random_model), late=late, page=page, **SETTINGS), load(str(random_model))
    options = {} if inside is None else {"branch_sampling": {"temperature": inside}}
    prompt, _ = forking(binding, tiny[1])
    reader = Reader(binding, temperature, branch_temperature=inside)
    asked = {"temperature": temperature, "max_tokens": 80, "ignore_eos": True, "multiverse": options}
    found = rollout(host, reader, prompt, **asked)
    assert len(found.strands) > 2
    assert mismatch(model, [found]) < TOLERANCE
    raw = replace(found, strands=tuple(replace(strand, temperature=1.0) for strand in found.strands))
    assert mismatch(model, [raw]) > 0.1


def counted(host: Host, found: Rollout, at: int, sees: torch.Tensor) -> list[int]:
    """The tokens that penalties count where token number `at` was sampled, as often as they do.

    Args:
        sees: bool `[n]`, what the token that predicts it sees.
    """
    start, before = len(found.prompt_ids), found.layout.predecessors[at]
    seen = [i for i in range(start, before + 1) if sees[i]]
    if not host.penalty_lag:
        return [found.ids[i] for i in seen]
    first_fork = start + next(iter(found.strands[0].forks), len(found.ids))
    late = [found.prompt_ids[-1]] if start < at < first_fork else []
    return late + [found.ids[i] for i in seen if i != before]


def orders(host: Host) -> list[tuple[str, ...]]:
    """Which of the penalties that are taken off may come before the repetition penalty; the others come behind it."""
    if VLLM:
        return [()]
    if host.penalty_lag:
        return [ADDITIVE]
    return [(), ADDITIVE[:1], ADDITIVE[1:], ADDITIVE]


def adjusted(
    logits: torch.Tensor, found: list[int], prompt: list[int], sampling: dict[str, Any], first: tuple[str, ...]
) -> torch.Tensor:
    """Logits `[vocabulary]` after bias, penalties and temperature, by the rule of the host that is installed here.

    Args:
        found: the generated tokens that count.
        first: one of `orders`.
    """
    bias = torch.zeros_like(logits)
    bias[list(sampling["logit_bias"])] = torch.tensor(list(sampling["logit_bias"].values()))
    counts = torch.bincount(torch.tensor(found, dtype=torch.int64), minlength=len(logits))
    less = {"frequency_penalty": counts, "presence_penalty": (counts > 0).int()}
    less = {name: sampling.get(name, 0) * value for name, value in less.items()}
    there = counts > 0
    if VLLM:
        there[prompt] = True
    logits = logits + bias if VLLM else logits
    logits = scaled(logits - sum(less[name] for name in first), there, sampling)
    logits = logits - sum(less[name] for name in ADDITIVE if name not in first)
    return (logits if VLLM else logits + bias) / sampling["temperature"]


def scaled(logits: torch.Tensor, there: torch.Tensor, sampling: dict[str, Any]) -> torch.Tensor:
    """Logits after the repetition penalty of tokens that are `there`."""
    penalty = sampling.get("repetition_penalty", 1.0)
    return torch.where(there, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


@pytest.mark.parametrize("forks", [True, False])
@pytest.mark.parametrize("penalties", PENALTIES.values(), ids=PENALTIES)
def test_bias_and_penalties_are_in_them_as_the_host_counts_them(
    engines: Engines,
    random_model: Path,
    late: bool,
    page: int,
    tiny: tuple[Any, Any],
    binding: Binding,
    penalties: dict[str, float],
    forks: bool,
) -> None:
    """In an answer that forks at once, before and behind its join; and in one that doesn't fork."""
    host = engines(str(random_model), late=late, page=page, **SETTINGS)
    prompt, bias = forking(binding, tiny[1])
    prompt = prompt if forks else list(tiny[1].encode("Find A."))
    sampling: dict[str, Any] = {"temperature": 0.8, "logit_bias": bias, **penalties}
    found = rollout(host, Reader(binding, 0.8), prompt, max_tokens=80, ignore_eos=True, **sampling)
    assert len(found.strands) == (3 if forks else 1)
    sees, logits = dense_mask(found.layout), computed(load(str(random_model))[0], found)
    sampled = [(at, value) for at, value in enumerate(found.document("logprobs"), len(prompt)) if value is not None]
    assert len(sampled) > 60
    worst = []
    for first in orders(host):
        differences = []
        for at, value in sampled:
            before = found.layout.predecessors[at]
            row = adjusted(logits[before], counted(host, found, at, sees[before]), prompt, sampling, first)
            differences.append(abs(float(row.log_softmax(-1)[found.ids[at]]) - value))
        worst.append(max(differences))
    assert min(worst) < TOLERANCE, worst
    assert not any(host.leftovers().values()), host.leftovers()


@torch.inference_mode()
def computed(model: Any, found: Rollout) -> torch.Tensor:
    """Logits `[n, vocabulary]` of one forward over prompt and answer."""
    mask, places = additive(dense_mask(found.layout))[None, None], positions(found.layout)[None]
    return model(torch.tensor([found.ids]), attention_mask=mask, position_ids=places).logits[0]
