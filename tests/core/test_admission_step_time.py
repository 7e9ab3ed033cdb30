"""Step times are learned from noise, followed when they drift, and forgotten when the host is another."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.serving.admission.step_time import LEAST, RESET, StepTime

BASE, PER_TOKEN, PER_READ = 0.012, 0.0004, 2e-7


def measured(width: int, read: int, times: float = 1.0) -> float:
    return times * (BASE + PER_TOKEN * width + PER_READ * read)


def served(steps: int, times: float = 1.0, noise: float = 0.0, known: StepTime | None = None) -> StepTime:
    rng, step_time = Random(5), known or StepTime()
    for _ in range(steps):
        width, read = rng.randint(1, 64), rng.randint(100, 60_000)
        step_time.learn(width, read, measured(width, read, times) * rng.uniform(1 - noise, 1 + noise))
    return step_time


def error(step_time: StepTime, times: float = 1.0) -> float:
    points = [(1, 500), (16, 10_000), (64, 60_000)]
    return max(abs(step_time.seconds(*point) / measured(*point, times) - 1) for point in points)


def test_nothing_is_predicted_before_there_is_anything_to_predict_from() -> None:
    step_time = served(LEAST - 1)
    assert not step_time.ready
    assert step_time.error is None
    assert served(LEAST).ready


@pytest.mark.parametrize(("noise", "off"), [(0.0, 0.001), (0.1, 0.04)])
def test_the_three_terms_are_found_under_noise(noise: float, off: float) -> None:
    assert error(served(400, noise=noise)) < off


def test_a_drift_is_followed() -> None:
    assert error(served(400, times=1.3, known=served(400)), times=1.3) < 0.02


def test_another_host_is_noticed_after_a_few_steps_and_what_was_learned_goes() -> None:
    step_time = served(400)
    served(RESET, times=5.0, known=step_time)
    assert step_time.learned == 1
    assert error(served(30, times=5.0, known=step_time), times=5.0) < 0.02


def test_one_step_that_was_interrupted_is_not_learned() -> None:
    step_time = served(400)
    step_time.learn(8, 4_000, 60.0)
    assert error(step_time) < 0.25


def test_what_no_step_has_shown_to_cost_anything_costs_nothing_until_one_does() -> None:
    step_time = StepTime()
    for _ in range(20_000):
        step_time.learn(8, 4_000, measured(8, 4_000))
    assert step_time.seconds(8, 4_000) == pytest.approx(measured(8, 4_000), rel=1e-6)
    served(200, known=step_time)
    assert error(step_time) < 0.02


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 10**6), st.floats(1e-6, 1e3)), max_size=60))
def test_whatever_was_measured_more_work_never_takes_less(steps: list[tuple[int, int, float]]) -> None:
    step_time = StepTime()
    for step in steps:
        step_time.learn(*step)
    assert 0 <= step_time.seconds(1, 0) <= step_time.seconds(2, 0) <= step_time.seconds(2, 10**6) < math.inf
