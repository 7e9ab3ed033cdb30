"""The hosts under test, and the model and problems they are tested with. One suite, whichever host is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from answer import Answer, Host
from drafter import draft, draft_no_more, known_drafts, row_drafts
from hosts import Engines
from modes import DRAFTED, DRAFTS, MODES, SCHEDULED
from tiers import Sizes
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from multiverse import Binding, bind
from multiverse.models import TINY
from multiverse.models.task import KINDS as TASKS
from multiverse.models.task import Problem, generate
from multiverse.models.tokenizer import turn
from multiverse.oracle import load

torch.set_num_threads(1)

KINDS = ("single", "flat", "nested", "chain", "flat", "nested", "small", "flat", "flat")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """In the short tier only what is marked `every_mode` runs in more than one."""
    if "mode" not in metafunc.fixturenames:
        return
    modes, usual = SCHEDULED.get(metafunc.module.__name__, MODES[1:2]), MODES[1]
    if find_spec("vllm") is not None:
        modes = MODES[:2] if len(modes) > 1 else modes
    elif metafunc.module.__name__ == "test_answers" and "random_host" in metafunc.fixturenames:
        modes, usual = MODES[1:], MODES[2]  # masks and positions differ by page, not by scheduling
    undrafted = metafunc.definition.get_closest_marker("undrafted") is not None
    modes += (DRAFTS,) if metafunc.module.__name__ in DRAFTED and not undrafted else ()
    short = not {"every_mode", "long"} & {mark.name for mark in metafunc.definition.iter_markers()}
    marks = {mode: (pytest.mark.long, pytest.mark.mode) if short and mode != usual else () for mode in modes}
    parameters = [pytest.param(mode, marks=marks[mode]) for mode in modes]
    metafunc.parametrize("mode", parameters, indirect=True, scope="session")


@pytest.fixture(scope="session")
def engines() -> Engines:
    """Makes a host, or gives one that has the same settings."""
    return Engines()


@pytest.fixture(scope="module", autouse=True)
def engines_of_a_module(engines: Engines) -> Iterator[None]:
    """Ends them with it."""
    yield
    engines.end_others()


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any]:
    """The embedded model in transformers, and its tokenizer."""
    return load(str(TINY))


@pytest.fixture(scope="session")
def binding(tiny: tuple[Any, Any]) -> Binding:
    return bind("multiverse", tiny[1])


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def late(mode: str) -> bool:
    """Whether the host schedules a step before it knows the tokens of the one before."""
    return mode not in (MODES[0], DRAFTS)


@pytest.fixture(scope="session")
def page(mode: str) -> int:
    """Tokens of a page, where that can be chosen."""
    return 16 if mode == "pages of 16 tokens" else 1


@pytest.fixture(scope="session")
def drafts(mode: str) -> dict[str, Any]:
    """What a host is made with so that it drafts, or nothing."""
    if mode != DRAFTS:
        return {}
    return row_drafts(4)


@pytest.fixture(autouse=True)
def books(engines: Engines) -> Iterator[None]:
    """After every test the adapter's books agree with the host's, and did so whenever the engine was at rest."""
    yield
    for one in engines.made():
        if hasattr(one, "integrity"):
            assert one.integrity() == []
        assert one.counters()["integrity_failures"] == 0


@pytest.fixture(scope="session")
def host(engines: Engines, late: bool, page: int, drafts: dict[str, Any]) -> Host:
    """The embedded model with plenty of memory."""
    return engines.keep(str(TINY), late=late, page=page, **drafts)


@pytest.fixture(scope="session")
def scarce_host(engines: Engines, late: bool, page: int, drafts: dict[str, Any]) -> Host:
    """The embedded model with memory for little more than one request, and for pages that are not full. Beside drafts
    SGLang admits so carefully that memory never gets short, so it is told to retract."""
    found = engines.keep(str(TINY), blocks=34 if page == 1 else 48, late=late, page=page, **drafts)
    if drafts and find_spec("sglang") is not None:
        found.operate("retract", 25)  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers of random weights, sharp enough that a wrong position or a wrong mask shows."""
    path = tmp_path_factory.mktemp("random")
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = AutoConfig.from_pretrained(TINY)
    config.num_hidden_layers, config.layer_types = 4, config.layer_types[:4]
    config.initializer_range = 0.2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def random_host(engines: Engines, random_model: Path, late: bool, page: int, drafts: dict[str, Any]) -> Host:
    return engines.keep(str(random_model), late=late, page=page, **drafts)


@pytest.fixture(scope="session")
def strict_host(engines: Engines, random_model: Path) -> Host:
    """Random weights under `--multiverse-structure strict`."""
    return engines.keep(str(random_model), structure="strict")


@pytest.fixture(scope="session")
def problems(sizes: Sizes) -> list[Problem]:
    rng = Random(11)
    return [generate(rng, kind, held_out=True) for kind in islice(cycle(KINDS), sizes.problems)]


@pytest.fixture(scope="session")
def task_prompts(tiny: tuple[Any, Any]) -> list[list[int]]:
    """One of each kind."""
    rng = Random(17)
    return [list(tiny[1].encode(turn(generate(rng, kind, held_out=True)))) for kind in TASKS]


@pytest.fixture(scope="session")
def undrafted(engines: Engines) -> Host:
    """A host that does not draft, and schedules as those that do."""
    return engines.keep(str(TINY), late=False)


@pytest.fixture(scope="session")
def undrafted_answers(undrafted: Host, task_prompts: list[list[int]]) -> list[Answer]:
    return undrafted.generate(task_prompts, logprobs=2)


@pytest.fixture(scope="session")
def longest_prompt(task_prompts: list[list[int]], undrafted_answers: list[Answer]) -> list[int]:
    """The one with the longest answer, which nests."""
    return task_prompts[max(range(len(task_prompts)), key=lambda i: len(undrafted_answers[i].ids))]


@pytest.fixture(scope="session")
def known(task_prompts: list[list[int]], undrafted_answers: list[Answer]) -> list[list[int]]:
    """The prompts with their answers."""
    return [prompt + answer.ids for prompt, answer in zip(task_prompts, undrafted_answers, strict=True)]


@pytest.fixture
def drafting(engines: Engines, known: list[list[int]]) -> Iterator[Host]:
    """A host that drafts what will be said."""
    host = engines(str(TINY), **known_drafts())
    draft(host, known)
    yield host
    draft_no_more(host)
