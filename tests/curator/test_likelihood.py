"""The numeric test tells paths that need a sibling from paths that don't; the local model is the embedded one."""

from __future__ import annotations

import re
from random import Random

import pytest
import torch
from curating import Configure, Serve, lines

from multiverse import parse_text, registry
from multiverse.attention import dense_mask
from multiverse.curator import RunError, curate, load_config
from multiverse.curator.config import Likelihood
from multiverse.curator.likelihood import LikelihoodTest, to_ids
from multiverse.errors import MultiverseError
from multiverse.models import TINY
from multiverse.models.task import Problem, generate
from multiverse.oracle import load
from multiverse.structure.layout import layout

DIALECT = registry.get("multiverse")


@pytest.fixture(scope="module")
def tester() -> LikelihoodTest:
    torch.set_num_threads(1)
    return LikelihoodTest(Likelihood(model=str(TINY), max_drop=0.3), DIALECT)


def problems(kind: str, count: int) -> list[Problem]:
    rng = Random(11)
    return [generate(rng, kind, None, held_out=True) for _ in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["flat", "nested"])
def test_independent_paths_lose_nothing_without_their_siblings(kind: str, tester: LikelihoodTest) -> None:
    for problem in problems(kind, 8):
        drops = tester.measure(problem.prompt, problem.parallel)
        assert len(drops) == sum(len(block.paths) - 1 for block in parse_text(problem.parallel).walk())
        assert max(drops.values()) < 0.1
        assert tester.judge(drops) == []


def test_a_path_that_only_makes_sense_beside_its_sibling_loses_likelihood(tester: LikelihoodTest) -> None:
    """The last path does the work of the first, on items that the question no longer tells."""
    found = 0
    for problem in problems("flat", 12):
        first, *_, last = re.findall(r"<Path>\n\d: (.*)\n</Path>", problem.parallel)
        question = "A = sum 1 2;" + problem.prompt.partition(";")[2]
        drops = tester.measure(question, problem.parallel.replace(last, first))
        worst = max(drops, key=lambda path: drops[path])
        found += bool(tester.judge(drops)) and worst == list(drops)[-1]
    assert found >= 10


def test_a_document_over_ids_has_the_structure_of_its_text() -> None:
    _, tokenizer = load(str(TINY))
    (problem,) = problems("nested", 1)
    text = parse_text(problem.parallel)
    tree = to_ids(text, tokenizer, "what? ")
    for block, same in zip(text.walk(), tree.walk(), strict=True):
        for path, moved in zip(block.paths, same.paths, strict=True):
            written = "".join(map(str, text.tokens[path.start : path.end]))
            assert tokenizer.decode(tree.ids[moved.start : moved.end]) == written
    mask = dense_mask(layout(tree))
    first, second = tree.blocks[0].paths[:2]
    assert not mask[second.start, first.start : first.end].any()


def test_the_test_is_part_of_the_pipeline_and_its_measures_are_kept(teach: Serve, configure: Configure) -> None:
    _, url = teach()
    lenient = {"likelihood": {"model": str(TINY), "max_drop": 100}}
    config = load_config(configure(url, 4, name="lenient", checks=lenient))
    run = curate(config)
    assert run.statistics.accepted == 4
    outcome = lines(config.output / "artefacts.jsonl")[0]
    assert list(outcome["checks"]["likelihood_drops"]) == ["1/2", "2/2", "2/3"]


def test_a_document_whose_path_fails_the_test_is_refused_with_the_path(
    teach: Serve, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LikelihoodTest, "measure", lambda *_: {"1/2": 0.9})
    _, url = teach()
    strict = {"likelihood": {"model": str(TINY), "max_drop": 0.5}}
    config = load_config(configure(url, 1, checks=strict))
    assert curate(config).statistics.rejected_at == {"document": 1}
    assert "path 2 of block 1 is 0.90 nats" in lines(config.output / "rejected.jsonl")[0]["reasons"][0]


def test_a_model_that_is_not_there_is_named(teach: Serve, configure: Configure) -> None:
    _, url = teach()
    config = load_config(configure(url, 1, checks={"likelihood": {"model": "/no/such/model"}}))
    with pytest.raises((RunError, MultiverseError), match="/no/such/model"):
        curate(config)
