"""Both model runners of vLLM, real ones: what they compute, at which position, in which slot.

V2 runs here with Triton's interpreter in place of its compiler (`conftest.py`), and otherwise as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from prompts import structured_prompts
from runner_kinds import RUNNERS, runner_of, start
from test_prompt_logprobs import check_scores
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from vllm.v1.core.kv_cache_utils import KVCacheBlockCopy
from vllm.v1.core.sched.output import SchedulerOutput
from vllm_host import VLLMHost

from multiverse import Binding, Limits, Tag, bind, layout, parse_ids
from multiverse.models import TINY
from multiverse.models.task import generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import check, load
from multiverse.oracle import generate as reference
from multiverse_vllm.channels import PLAN
from multiverse_vllm.plan import StepPlan
from multiverse_vllm.worker.runners import shift

KINDS = [pytest.param(kind, marks=pytest.mark.long if kind == "V2" else ()) for kind in RUNNERS]
"""In brief without V2 step by step, as which it drafts. A step ahead is what a GPU user gets."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def host(kind: str) -> VLLMHost:
    """The embedded model, which decides to fork by itself."""
    return start(kind, TINY)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, so large that a wrong position or a wrong token shows in every logit."""
    path = tmp_path_factory.mktemp("random")
    config = AutoConfig.from_pretrained(TINY, initializer_range=0.2)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load(str(TINY))


@pytest.fixture(scope="module")
def binding(tiny: tuple[Any, Any]) -> Binding:
    return bind("multiverse", tiny[1])


def prompts_of(tokenizer: Any, seed: int, *kinds: str) -> list[list[int]]:
    rng = Random(seed)
    return [list(tokenizer.encode(turn(generate(rng, kind, held_out=True)))) for kind in kinds]  # type: ignore[arg-type]


def test_answers_are_the_oracles(host: VLLMHost, tiny: tuple[Any, Any]) -> None:
    prompts = prompts_of(tiny[1], 11, "flat", "nested", "chain")
    answers = host.generate(prompts)
    expected = reference(*tiny, prompts, limits=Limits(max_tokens=800))
    assert [answer.ids for answer in answers] == [answer.ids for answer in expected]
    assert not any(host.leftovers().values())


def test_logprobs_are_those_of_the_dense_forward(kind: str, random_model: Path, binding: Binding) -> None:
    model, tokenizer = load(str(random_model))
    host = start(kind, random_model)
    goal = "<Parallel>\n<Goal>\n" + "<Outline>\n1: A\n</Outline>\n" * 3 + "</Goal>"
    prompt = [*range(20), *tokenizer.encode(goal)]
    bias = {"logit_bias": dict.fromkeys(binding.tags, -100.0) | {binding.ids[Tag.PATH_CLOSE]: 4.0}}
    if kind == "V2 with drafts":  # vLLM refuses biases beside them
        words = sorted(set(range(len(tokenizer))) - set(binding.tags))
        bias = {"allowed_token_ids": words, "multiverse": {"max_critical_path": 60}}
    (answer,) = host.generate([prompt], temperature=1.0, seed=1, max_tokens=150, logprobs=1, **bias)
    assert answer.logprobs is not None
    tree = parse_ids(prompt + answer.ids, binding)
    assert [len(block.paths) for block in tree.walk()] == [3]
    sampled = [value if value < 0 else None for value in answer.logprobs]
    result = check(tree, model, [None] * len(prompt) + sampled)
    assert result.max_difference < 1e-4
    assert result.causal_difference > 0.1
    prompts = structured_prompts(Random(14), binding, 3, longest=300)
    for prompt, answer in zip(prompts, host.generate(prompts, max_tokens=4, prompt_logprobs=2), strict=True):
        check_scores(model, binding, prompt, answer, 2)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.values != ("V2 with drafts",)], indirect=True)
def test_strict_structure_lets_even_random_weights_write_only_what_is_well_formed(
    kind: str, random_model: Path, binding: Binding
) -> None:
    """Tags are made likely; batches with and without such requests, and memory for two thirds of them."""
    host = start(kind, random_model, structure="strict", blocks=40)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    likely = dict.fromkeys(binding.tags, 4.0) | dict.fromkeys(tokenizer.all_special_ids, -100.0)
    options = {"temperature": 1.5, "max_tokens": 120, "logit_bias": likely, "ignore_eos": True}
    prompt = tokenizer.encode("Find A.")
    structures = (None, {"structure": "lenient"}) * 8
    asked = [(prompt, {**options, "seed": seed, "multiverse": structure}) for seed, structure in enumerate(structures)]
    answers = host.generate_each(asked)
    found = [parse_ids(prompt + answer.ids, binding) for answer in answers]
    wrong = [[one for one in tree.violations if one.found != "end of text"] for tree in found]
    assert not any(wrong[::2])
    assert any(wrong[1::2])
    assert sum(bool(tree.blocks) for tree in found[::2]) > 3
    assert not any(host.leftovers().values())


@pytest.mark.parametrize("kind", ["V2"], indirect=True)
def test_scores_of_fixed_tokens_are_the_prompts_own_and_no_branchs(host: VLLMHost, tiny: tuple[Any, Any]) -> None:
    """vLLM scores them over whole prompts: one that it computes in parts is refused, and branches have none."""
    (prompt,) = prompts_of(tiny[1], 15, "flat")
    (answer,) = host.generate([prompt], prompt_logprob_token_ids=[[7, 9]] * (len(prompt) - 1))
    assert answer.record is not None
    assert answer.record["branches"] > 1
    turns = prompt + answer.ids + prompt
    with pytest.raises(ValueError, match="prompt_logprob_token_ids is not for prompts that hold blocks"):
        host.generate([turns], prompt_logprob_token_ids=[[7, 9]] * (len(turns) - 1))
    ids = [[7]] * (len(turns) - 1)
    (plain,) = host.generate([turns], prompt_logprob_token_ids=ids, max_tokens=2, multiverse={"enabled": False})
    assert len(plain.ids) == 2
    assert not any(host.leftovers().values())


@pytest.mark.parametrize("kind", ["V1", "V2"], indirect=True)
def test_every_token_is_computed_once_at_the_position_that_the_layout_gives_it(
    host: VLLMHost, tiny: tuple[Any, Any], binding: Binding
) -> None:
    (prompt,) = prompts_of(tiny[1], 12, "nested")
    computed: Counter[tuple[int, int]] = Counter()

    def count(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        computed.update(zip(inputs["input_ids"].tolist(), inputs["positions"].tolist(), strict=True))

    hook = runner_of(host).model.register_forward_pre_hook(count, with_kwargs=True)
    (answer,) = host.generate([prompt])
    hook.remove()
    tokens = prompt + answer.ids[:-1]  # nothing follows the last one
    positions = layout(parse_ids(tokens, binding)).positions
    assert len(set(positions)) < len(positions)
    expected = Counter(zip(tokens, positions, strict=True))
    for end, width in goals(tokens, binding):  # its branches, too, each compute its last two
        for place in (end, end + 1):
            expected[tokens[place], positions[place]] += width
    assert computed == expected


def goals(tokens: list[int], binding: Binding) -> Iterator[tuple[int, int]]:
    """Of each goal, the index of the tag that closes it, and how many outlines it has."""
    width = 0
    for index, token in enumerate(tokens):
        if token == binding.ids[Tag.GOAL_OPEN]:
            width = 0
        elif token == binding.ids[Tag.OUTLINE_OPEN]:
            width += 1
        elif token == binding.ids[Tag.GOAL_CLOSE]:
            yield index, width


def test_moves_come_before_the_copies_of_partly_filled_blocks(host: VLLMHost) -> None:
    runner = runner_of(host)
    cache = next(iter(runner.kv_caches))
    cache[3:6] = torch.arange(3.0, 6.0)[:, None, None, None]
    output = SchedulerOutput.make_empty()
    output.kv_cache_block_copies = [KVCacheBlockCopy(4, 5)]
    setattr(output, PLAN, StepPlan(moves=[(3, i, 4, i) for i in range(32)]))
    update = runner.update_requests if hasattr(runner, "update_requests") else runner._update_states
    update(output)
    assert (cache[3:6] == 3).all()


@pytest.mark.parametrize("kind", ["V2"], indirect=True)
def test_deltas_go_into_the_buffer_that_cuda_graphs_read_and_slots_do_not_change(
    host: VLLMHost, tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (prompt,) = prompts_of(tiny[1], 13, "flat")
    runner = runner_of(host)
    size, prepare, deltas = 32, runner.prepare_attn, set()

    def prepare_attn(batch: Any) -> Any:
        before = batch.positions.clone()
        tables, slots = prepare(batch)
        assert batch.positions.data_ptr() == runner.input_buffers.positions.data_ptr()
        rows = np.repeat(np.arange(batch.num_reqs), batch.num_scheduled_tokens)
        assert slots[0].tolist() == (tables[0][rows, before // size] * size + before % size).tolist()
        deltas.update((batch.positions - before).tolist())
        return tables, slots

    monkeypatch.setattr(runner, "prepare_attn", prepare_attn)
    host.generate([prompt])
    assert max(deltas) == 0
    assert min(deltas) < 0


def test_a_batch_is_shifted_in_place_and_its_padding_stays() -> None:
    """A CUDA graph runs on more rows and tokens than there are."""
    positions = torch.tensor([9, 10, 11, 40, 7, 0, 0])
    buffer = positions.data_ptr()
    plan = StepPlan(deltas={"a": -2, "c": -7, "not here": -1})
    shift(positions, ["a", "b", "c"], np.array([0, 3, 4, 5, 5, 5], np.int32), plan)
    assert positions.tolist() == [7, 8, 9, 40, 0, 0, 0]
    assert positions.data_ptr() == buffer


def test_a_branch_that_computes_tokens_of_its_parent_has_them_where_its_parent_has_them() -> None:
    positions = torch.tensor([9, 4, 5, 6, 7, 20, 0])
    plan = StepPlan(deltas={"a": -2, "a/0": -3}, heads={"a/0": (2, -2), "b": (1, -5)})
    shift(positions, ["a", "a/0", "b"], np.array([0, 1, 5, 6], np.int32), plan)
    assert positions.tolist() == [7, 2, 3, 3, 4, 15, 0]
