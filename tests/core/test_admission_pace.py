"""What a request was promised, and how long until it is late."""

from __future__ import annotations

import math

import pytest

from multiverse.serving.admission.pace import AHEAD, Pace, Slo


def test_who_was_promised_nothing_is_never_late() -> None:
    pace = Pace(Slo(), created=0.0, most=100)
    assert not pace.slo
    assert pace.slack(0, 1e9) == math.inf
    assert pace.met(7, 1e9)


def test_before_its_first_token_it_has_its_time_to_the_first_token() -> None:
    pace = Pace(Slo(ttft=2.0, tpot=0.1), created=10.0, most=100)
    assert pace.slack(0, 10.5) == pytest.approx(AHEAD * 2.0 - 0.5)


def test_what_it_was_served_faster_than_promised_it_can_spare() -> None:
    pace = Pace(Slo(tpot=0.1), created=0.0, most=100, first=5.0)
    assert pace.slack(1, 5.0) == pytest.approx(AHEAD * 0.1)
    assert pace.slack(11, 5.5) == pytest.approx(AHEAD * 1.1 - 0.5)
    assert pace.slack(11, 6.5) < 0


def test_a_deadline_is_spread_over_the_tokens_that_there_may_be() -> None:
    pace = Pace(Slo(deadline=10.0), created=0.0, most=100)
    assert pace.slack(49, 1.0) == pytest.approx(AHEAD * 5.0 - 1.0)
    assert pace.slack(200, 1.0) == pytest.approx(AHEAD * 10.0 - 1.0)


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(ttft=1.0), True),
        (Slo(ttft=0.9), False),
        (Slo(tpot=0.2), True),
        (Slo(tpot=0.19), False),
        (Slo(deadline=3.0), True),
        (Slo(deadline=2.9), False),
        (Slo(1.0, 0.2, 2.9), False),
    ],
)
def test_a_promise_is_held_to_the_letter(slo: Slo, met: bool) -> None:
    """Ten tokens behind the first, which came after a second, in two seconds."""
    assert Pace(slo, created=7.0, most=100, first=8.0).met(11, 10.0) is met


def test_what_a_step_may_take_for_good_is_the_tightest_of_what_was_promised() -> None:
    assert Pace(Slo(ttft=1.0), created=0.0, most=100).per_token == math.inf
    assert Pace(Slo(tpot=0.2), created=0.0, most=100).per_token == pytest.approx(AHEAD * 0.2)
    assert Pace(Slo(tpot=0.2, deadline=10.0), created=0.0, most=100).per_token == pytest.approx(AHEAD * 0.1)
