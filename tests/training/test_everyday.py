"""The everyday task family: right answers, sound blocks, and a split that nothing crosses."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from small import DIALECT, TOKENIZER, encoder, model

from multiverse import parse_text
from multiverse.training.everyday import KINDS, Problem, problems
from multiverse.training.everyday.__main__ import main
from multiverse.training.replies import prompts, replies
from multiverse.training.schema import Example, check

DRAWN = [*islice(problems(3, held_out=False), 400), *islice(problems(3, held_out=True), 400)]
BUYS = re.compile(r"(\w+) buys (\d+) \w+ at (\d+) dollars each and (?:has a coupon for (\d+)|a \w+ for (\d+)) dollars")
MORE = re.compile(r"has (\d+) more than")


def of(kind: str) -> list[Problem]:
    return [problem for problem in DRAWN if problem.kind == kind]


def test_every_problem_is_an_example_of_the_schema_that_can_be_encoded() -> None:
    for number, problem in enumerate(DRAWN):
        found = check(problem.row(number), "x:1", DIALECT)
        assert isinstance(found, Example), found
        encoder().encode(found)
    assert {problem.kind for problem in DRAWN} == set(KINDS)


def test_a_block_has_a_path_for_every_part_and_both_forms_say_the_same() -> None:
    for problem in DRAWN:
        blocks = parse_text(problem.parallel).blocks
        assert [block.width for block in blocks] == ([problem.width] if problem.width > 1 else [])
        bare = re.sub(r"<Outline>\n.*\n</Outline>\n|</?\w+>\n?|(?m:^\d: )", "", problem.parallel)
        assert re.sub(r"\n+", "\n", bare) == problem.sequential
        assert problem.sequential.endswith(f"\nAnswer: {problem.answer}")


def test_bills_and_chains_add_up() -> None:
    """Worked out again from the question alone."""
    for problem in of("costs"):
        bills = {
            n: int(a) * int(b) - int(off or 0) + int(on or 0) for n, a, b, off, on in BUYS.findall(problem.question)
        }
        assert len(bills) == problem.width
        question = problem.question.rpartition(". ")[2]
        right = {
            "Who spends the most?": max(bills, key=lambda name: bills[name]),
            "Who spends the least?": min(bills, key=lambda name: bills[name]),
            "How much do they spend together?": f"{sum(bills.values())} dollars",
        }
        assert problem.answer == right[question]
    for problem in of("chain"):
        first = int(re.findall(r"has (\d+) ", problem.question)[0])
        total = first + sum(map(int, MORE.findall(problem.question)))
        assert problem.answer.split()[0] == str(total)


def test_offers_fit_if_they_meet_both_conditions() -> None:
    for problem in of("fits"):
        limit, bound = map(int, re.findall(r"at most (\d+) dollars and have at least (\d+)", problem.question)[0])
        offers = re.findall(r"([A-Z][\w ]*): (\d+) dollars, (\d+)", problem.question)
        fitting = [name for name, price, size in offers if int(price) <= limit and int(size) >= bound]
        assert problem.answer == (", ".join(fitting) or "none")


def test_a_field_has_the_value_that_was_named_last() -> None:
    for problem in of("form"):
        names = re.findall(r"fields (.*?)\. Message", problem.question)[0].split(", ")
        for name, value in zip(names, problem.answer.split("; "), strict=True):
            changed = re.findall(rf"change the {name} to ([^.]*)\.", problem.question)
            assert not changed or changed == [value]
            assert value in problem.question


@pytest.mark.parametrize("seed", [0, 1])
def test_no_question_is_on_both_sides_of_the_split_whatever_the_seed(seed: int) -> None:
    learnt = {problem.question for problem in islice(problems(seed, held_out=False), 300)}
    held_out = {problem.question for problem in islice(problems(1 - seed, held_out=True), 300)}
    assert len(learnt) == len(held_out) == 300
    assert not learnt & held_out


def test_the_command_writes_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["everyday", str(tmp_path), "--train", "5", "--held-out", "3"])
    main()
    sizes = [len((tmp_path / f"{name}.jsonl").read_text().splitlines()) for name in ("train", "held_out")]
    assert sizes == [5, 3]
    assert json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])["question"]


def test_replies_are_the_models_own_and_only_finished_ones() -> None:
    assert len(set(prompts())) == len(prompts()) > 100
    lm = model(seed=1).eval()
    with torch.no_grad():
        lm.lm_head.weight[TOKENIZER.eos_token_id] *= 3  # or a random model would never end
    lm.generation_config.pad_token_id = TOKENIZER.pad_token_id
    rows = list(replies(lm, TOKENIZER, limit=12, batch=64))
    assert 20 < len(rows) < len(prompts())
    for row in rows:
        assert isinstance(check(row, "x:1", DIALECT), Example)
        turn = [{"role": "user", "content": row["question"]}]
        prompt = TOKENIZER.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        ids = TOKENIZER(prompt, return_tensors="pt").input_ids
        alone = lm.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
        assert TOKENIZER.eos_token_id in alone
        assert TOKENIZER.decode(alone[: alone.index(TOKENIZER.eos_token_id)]).strip() == row["sequential"]
