"""Policies change when branches run, never whether: on a simulated host, and in single steps."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.errors import OptionError
from multiverse.evaluation.plan.server import Asked, Report, serve
from multiverse.serving.admission.pace import Slo
from multiverse.serving.admission.policies import LATE, LONGEST, Policy, Slack, make_policy
from multiverse.serving.admission.step import Family, Step

SETTINGS = ("off", "cap:1", "cap:3", "slack")


def seconds(width: int, read: int) -> float:
    return 0.010 + 0.002 * width + 1e-6 * read


def policy(setting: str) -> Policy:
    made = make_policy(setting)
    assert made is not None
    return made


def step(sizes: list[int], slack: float, number: int = 1, width: int = 4) -> Step:
    return Step(number, [Family([number] * size, 400 * size) for size in sizes], width, width * 400, slack)


def learned() -> Slack:
    known = Slack()
    for width in range(1, 60):
        known.step_time.learn(width, 400 * width, seconds(width, 400 * width))
    return known


asked = st.builds(
    Asked,
    st.floats(0, 3),
    st.integers(1, 8),
    st.lists(st.integers(1, 90), max_size=12).filter(lambda branches: len(branches) != 1),
    st.integers(1, 8),
    st.builds(Slo, st.none() | st.floats(1e-6, 2), st.none() | st.floats(1e-6, 0.2), st.none() | st.floats(1e-6, 20)),
)


@pytest.mark.parametrize("setting", SETTINGS)
@given(st.lists(asked, min_size=1, max_size=8))
def test_no_branch_is_lost_and_none_is_held_for_ever(setting: str, requests: list[Asked]) -> None:
    report = serve(requests, policy(setting), seconds)
    for request, said in zip(requests, report.said, strict=True):
        assert [said.count(branch) for branch in range(len(request.branches))] == list(request.branches)
        assert len(said) == request.tokens
    waiting = sum(len(request.branches) for request in requests)
    if setting == "slack":
        assert report.longest_held <= LONGEST + waiting
    else:  # for those before it in its own request
        assert report.longest_held <= max(sum(request.branches) for request in requests)


@given(st.lists(asked, min_size=1, max_size=6))
def test_off_runs_one_branch_at_a_time_in_order(requests: list[Asked]) -> None:
    for said in serve(requests, policy("off"), seconds).said:
        branches = [branch for branch in said if branch >= 0]
        assert branches == sorted(branches)


@given(st.lists(asked, min_size=1, max_size=6))
def test_where_everybody_has_time_slack_is_eager(requests: list[Asked]) -> None:
    for request in requests:
        request.slo = Slo()
    assert serve(requests, policy("slack"), seconds) == serve(requests, None, seconds)


@pytest.mark.parametrize("setting", SETTINGS)
@given(requests=st.lists(asked, min_size=1, max_size=6))
def test_the_same_requests_are_served_in_the_same_way(setting: str, requests: list[Asked]) -> None:
    assert serve(requests, policy(setting), seconds) == serve(requests, policy(setting), seconds)


def test_eager_is_no_policy_at_all() -> None:
    assert make_policy("eager") is None


@pytest.mark.parametrize(
    "setting", ["", "cap", "cap:", "cap:0", "cap:-1", "cap:x", "cap:9999999", "off:1", "lazy", "²"]
)
def test_a_policy_that_is_none_is_refused_by_name(setting: str) -> None:
    with pytest.raises(OptionError, match=r"^admission "):
        make_policy(setting)


def test_a_cap_counts_by_request() -> None:
    assert policy("cap:2").plan(step([5, 1, 2], math.inf)).counts == [2, 1, 2]


def test_slack_lets_as_many_run_as_the_others_have_time_for() -> None:
    known = learned()
    for allowed in range(3, 21):
        spare = seconds(4 + allowed, 400 * (4 + allowed)) * 1.001
        counts = known.plan(step([8, 8, 4], spare)).counts
        assert sum(counts) == allowed
        assert max(counts) - min(counts) <= 1 or counts[2] == 4  # equally many, as far as there are any


def test_one_branch_of_each_request_runs_even_if_somebody_is_late() -> None:
    assert learned().plan(step([8, 8, 4], -5.0)).counts == [1, 1, 1]


def test_where_even_one_branch_of_each_takes_longer_than_promised_all_run() -> None:
    late = step([8, 8, 4], -5.0)
    shortest = seconds(7, 2800)
    assert learned().plan(late._replace(pace=1.01 * shortest)).counts == [1, 1, 1]
    assert learned().plan(late._replace(pace=0.99 * shortest)).counts == [8, 8, 4]
    assert learned().plan(late._replace(pace=0.99 * shortest, slack=-(LATE - 1) * shortest)).counts == [1, 1, 1]


def test_where_the_work_is_more_than_can_be_done_in_time_slack_is_no_worse_than_eager() -> None:
    requests = mixed(2.2)
    found = {name: serve(requests, make_policy(name), seconds).attainment for name in ("eager", "off", "slack")}
    assert found["slack"] >= max(found["eager"], found["off"])


def test_what_is_left_goes_to_the_request_that_is_latest() -> None:
    families = [Family([1] * 4, 1600, slack) for slack in (3.0, -1.0, 2.0)]
    counts = learned().plan(Step(1, families, 4, 1600, seconds(8, 3200) * 1.001)).counts
    assert counts == [1, 2, 1]


def test_the_branch_that_was_held_for_longest_gets_a_step_in_any_case() -> None:
    families = [
        Family([200] * 3),
        Family([200, 200, 200 - LONGEST, 200 - LONGEST - 3]),
        Family([200, 200 - LONGEST - 1]),
    ]
    plan = learned().plan(Step(200, families, 4, 1600, -1.0))
    assert [[plan.runs(i, j) for j in range(len(f.held_since))] for i, f in enumerate(families)] == [
        [True, False, False],
        [True, False, False, True],
        [True, False],
    ]
    fresh = [Family([200, 200 - LONGEST + 1])]
    assert learned().plan(Step(200, fresh, 4, 1600, -1.0)).overdue is None


def mixed(rate: float, requests: int = 150) -> list[Asked]:
    """Three of four plain, the others with blocks; each may take 30 ms per token."""
    rng, at, found = Random(3), 0.0, []
    for number in range(requests):
        at += rng.expovariate(rate)
        branches = [rng.randint(40, 80) for _ in range(8)] if number % 4 == 0 else []
        found.append(Asked(at, rng.randint(20, 60), branches, 20, Slo(tpot=0.030)))
    return found


def test_where_eager_is_late_slack_serves_more_in_time_than_eager_and_than_off() -> None:
    requests = mixed(1.4)
    found: dict[str, Report] = {name: serve(requests, make_policy(name), seconds) for name in ("eager", "off", "slack")}
    assert found["eager"].attainment < 0.95
    assert found["slack"].attainment >= 0.99
    assert found["slack"].attainment > 1.5 * found["eager"].attainment
    assert found["slack"].attainment > 1.1 * found["off"].attainment
    blocks = [i for i, request in enumerate(requests) if request.branches]
    taken = {name: sum(report.ended[i] - requests[i].arrival for i in blocks) for name, report in found.items()}
    assert taken["slack"] < 0.6 * taken["off"]
