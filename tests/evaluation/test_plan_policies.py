"""Policies of admission on machines that are not here: the code that hosts run, on a simulated server."""

from __future__ import annotations

import json
from random import Random

import pytest
from program import run

from multiverse.evaluation.plan.goodput import POLICIES, Row, over_policies, per_second
from multiverse.evaluation.plan.machine import Machine, Model, Roofline, load
from multiverse.evaluation.plan.mix import NARROW, PLAIN, WIDE, make_up
from multiverse.evaluation.plan.server import Asked, serve

PAPER = {"eager": 1.48, "off": 1.77}
"""What arXiv 2605.06914 gives for the goodput of its policy over others, with more than 95 % in time."""


def found(machine: str, rate: float, slo: float, requests: int) -> dict[str, Row]:
    line = Roofline(load(Machine, "machines", machine), load(Model, "models", "qwen2.5-32b"))
    rows = over_policies(line, [rate], tokens=1000, prompt=2048, slo=slo, requests=requests)
    return {row.policy: row for row in rows}


def test_where_eager_is_late_the_gains_are_those_of_the_paper() -> None:
    rows = found("h200", 4.0, 2.0, 400)
    assert rows["eager"].attainment < 0.95 < rows["slack"].attainment
    gains = {policy: rows["slack"].goodput / rows[policy].goodput for policy in PAPER}
    assert gains == pytest.approx(PAPER, rel=0.15)


def test_where_memory_is_short_only_branches_fill_the_batch() -> None:
    rows = found("h100", 1.0, 2.5, 120)
    assert rows["slack"].goodput == rows["eager"].goodput > 2 * rows["off"].goodput
    assert {row.attainment for row in rows.values()} == {1.0}


def test_a_request_waits_until_there_is_room_for_all_of_its_kv() -> None:
    asked = [Asked(0.0, 10, prompt=90) for _ in range(3)]
    assert serve(asked, None, lambda *_: 1.0, room=300).ended == [10.0, 10.0, 10.0]
    assert serve(asked, None, lambda *_: 1.0, room=299).ended == [10.0, 10.0, 20.0]
    assert serve(asked, None, lambda *_: 1.0, room=50).ended == [10.0, 20.0, 30.0]  # one in any case


def test_branches_attend_to_the_prompt_and_to_themselves() -> None:
    seen: list[tuple[int, int]] = []
    serve([Asked(0.0, 1, (2, 1), 1, prompt=10)], None, lambda *step: seen.append(step) or 1.0)
    assert seen == [(1, 10), (2, 22), (1, 12), (1, 14)]


def test_what_ends_while_the_server_fills_or_empties_does_not_count() -> None:
    assert per_second([0.5, 1.0, 2.0, 3.0, 3.5], 3.0) == 1.5


def test_of_five_answers_four_have_blocks_and_of_these_one_is_wide() -> None:
    rng = Random(0)
    made = [make_up(rng, 0.8, 2) for _ in range(2000)]
    share = {kind: sum(one.kind == kind for one in made) / len(made) for kind in (PLAIN, NARROW, WIDE)}
    assert share == pytest.approx({PLAIN: 0.2, NARROW: 0.64, WIDE: 0.16}, abs=0.03)
    assert {len(one.branches) for one in made if one.kind != PLAIN} == {2, 16}
    assert all(length % 2 == 0 for one in made for length in one.branches)


def test_the_command_tells_it_as_a_table_and_as_json() -> None:
    asked = ("--policies", "--machine", "h100", "--tokens", "240", "--rate", "5", "--prompt", "64")
    done = run(*asked, command="plan")
    assert [line.split(" | ")[1] for line in done.stdout.splitlines()[4:]] == list(POLICIES)
    rows = json.loads(run(*asked, "--json", command="plan").stdout)
    assert [row["policy"] for row in rows] == list(POLICIES)
    assert "--policies needs --rate" in run("--policies", command="plan").stderr
