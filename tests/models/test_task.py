"""The promises of `multiverse.models.task`, checked with an independent evaluation of the prompts."""

from __future__ import annotations

import re
from itertools import islice
from random import Random

import pytest

from multiverse.models.task import KINDS, LIMIT, SHORT, WIDTHS, Kind, Problem, generate, is_held_out, stream
from multiverse.structure.parser import parse_text
from multiverse.structure.tree import Block

APPLY = {"sum": sum, "max": max, "min": min}


def draw(kind: Kind, count: int = 150, seed: int = 1) -> list[Problem]:
    rng = Random(seed)
    return [generate(rng, kind) for _ in range(count)]


def lists(prompt: str) -> dict[str, tuple[str, list[str]]]:
    """Label -> operation and items, read from the prompt alone."""
    found = re.findall(r"([A-I]) = (sum|max|min) ([^;.]+)", prompt)
    return {label: (op, items.split()) for label, op, items in found}


def evaluate(prompt: str) -> int:
    """Work a prompt out without any of the generator's code."""
    values: dict[str, int] = {}
    for label, (op, items) in lists(prompt).items():
        values[label] = APPLY[op]([values[i] if i in values else int(i) for i in items])
    wanted = re.search(r"Find (.*)\.$", prompt)
    assert wanted is not None
    text = wanted[1]
    while group := re.search(r"\( (\w+) ([^()]+) \)", text):
        text = text.replace(group[0], str(apply(group[1], group[2].split(), values)))
    op, _, rest = text.partition(" ")
    return apply(op, rest.split(), values) if rest else values[op]


def apply(op: str, items: list[str], values: dict[str, int]) -> int:
    return int(APPLY[op]([values[i] if i in values else int(i) for i in items]))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_right(kind: Kind) -> None:
    for problem in draw(kind):
        assert evaluate(problem.prompt) == int(problem.answer) <= LIMIT, problem.prompt
        for solution in (problem.parallel, problem.sequential):
            assert solution.endswith(f"\nAnswer: {problem.answer}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_right(kind: Kind) -> None:
    """Each line of a solution is a chain of equal values; a conclusion folds labelled values."""
    for problem in draw(kind, 60):
        for line in problem.sequential.split("\n")[:-1]:
            op = re.search(r"sum|max|min", line)
            assert op is not None
            if re.search(rf"{op[0]} [A-Z]", line):
                numbers = [int(n) for n in re.findall(r"[A-Z] (\d+)", line)]
                totals = [int(n) for n in re.findall(r"= (\d+)", line)]
                assert totals == [APPLY[op[0]](numbers[: i + 2]) for i in range(len(numbers) - 1)]
            else:
                steps = [[int(n) for n in re.findall(r"\d+", s)] for s in line[op.end() :].split("=")]
                assert {APPLY[op[0]](s) for s in steps} == {steps[-1][0]}
                assert len(steps[-1]) == 1


@pytest.mark.parametrize("kind", ["single", "chain", "small"])
def test_what_is_not_worth_a_block_has_none(kind: Kind) -> None:
    for problem in draw(kind):
        assert not problem.forks
        assert problem.width == 1
        assert problem.parallel == problem.sequential
        assert "<" not in problem.parallel
        parts = lists(problem.prompt)
        assert (len(parts) == 1) == (kind == "single")
        assert any(i.isalpha() for _, items in parts.values() for i in items) == (kind == "chain")
        if kind == "small":
            assert all(len(items) <= SHORT for _, items in parts.values())


@pytest.mark.parametrize("width", WIDTHS)
def test_flat_problems_hold_one_block(width: int) -> None:
    rng = Random(width)
    for problem in (generate(rng, "flat", width) for _ in range(60)):
        tree = parse_text(problem.parallel)
        assert tree.well_formed
        assert [b.width for b in tree.walk()] == [width] == [problem.width]
        parts = lists(problem.prompt)
        assert len(parts) == width
        assert max(len(items) for _, items in parts.values()) > SHORT
        assert all(len(set(items)) == len(items) for _, items in parts.values())


def test_nested_problems_hold_a_block_in_a_path() -> None:
    for problem in draw("nested"):
        tree = parse_text(problem.parallel)
        assert tree.well_formed
        assert len(tree.blocks) == 1
        blocks: list[Block] = list(tree.walk())
        assert max(b.depth for b in blocks) == 2
        for block in blocks[1:]:
            assert all("." in path.label for path in block.paths)


@pytest.mark.parametrize("kind", ["flat", "nested"])
def test_both_serialisations_say_the_same(kind: Kind) -> None:
    """The lines of the sequential form are those of the paths and conclusions, in the same order."""
    for problem in draw(kind, 60):
        text = re.sub(r"<Goal>.*?</Goal>", "", problem.parallel, flags=re.DOTALL)
        text = re.sub(r"\n[\d.]+: (?:[PQR] = .*\n<Parallel>)?", "\n", text)
        lines = [line for line in re.sub(r"</?\w+>", "", text).split("\n") if line]
        assert lines == problem.sequential.split("\n")


def test_the_same_seed_gives_the_same_problems() -> None:
    assert list(islice(stream(7), 50)) == list(islice(stream(7), 50)) != list(islice(stream(8), 50))


def test_training_never_sees_a_held_out_prompt() -> None:
    held_out = {p.prompt for p in islice(stream(1), 1000)}
    training = {p.prompt for seed in range(4) for p in islice(stream(seed, held_out=False), 500)}
    assert all(map(is_held_out, held_out))
    assert not any(map(is_held_out, training))


def test_easy_problems_are_short_and_not_nested() -> None:
    rng = Random(0)
    problems = [generate(rng, level=0.0) for _ in range(300)]
    assert {p.kind for p in problems} == set(KINDS) - {"nested"}
    assert max(p.width for p in problems) == 2
    assert max(len(items) for p in problems for _, items in lists(p.prompt).values()) <= 5


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind 'wide'"):
        generate(Random(0), "wide")  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "width"), [("flat", 7), ("nested", 4), (None, 1)])
def test_a_width_out_of_range_is_refused(kind: Kind | None, width: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        generate(Random(0), kind, width)
