"""What an operator and a client may ask of admission, and where nobody would look at it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from multiverse.errors import OptionError
from multiverse.serving.admission.pace import Slo
from multiverse.serving.admission.promises import promised
from multiverse.serving.options import Options, take_flags


def server(**settings: str) -> Options:
    return Options.from_environment({f"MULTIVERSE_{name.upper()}": value for name, value in settings.items()})


def promises(options: Options) -> Slo:
    return promised(options.slo, options.tpot_slo_ms, options.ttft_slo_ms)


def test_flags_are_read() -> None:
    environment: dict[str, str] = {}
    take_flags(["serve", "--multiverse-admission", "slack", "--multiverse-tpot-slo-ms=12.5"], environment)
    options = Options.from_environment(environment)
    assert (options.admission, options.tpot_slo_ms, options.ttft_slo_ms) == ("slack", 12.5, None)


def test_a_request_is_promised_what_it_asks_for_and_else_what_the_server_promises() -> None:
    options = server(admission="slack", tpot_slo_ms="50", ttft_slo_ms="1000")
    assert promises(options.for_request(None)) == Slo(ttft=1.0, tpot=0.05)
    assert promises(options.for_request({"slo": {"tpot_ms": 80}})) == Slo(ttft=1.0, tpot=0.08)
    assert promises(options.for_request({"slo": {"deadline_ms": 4000}})) == Slo(ttft=1.0, tpot=0.05, deadline=4.0)
    assert not promises(server(admission="slack").for_request({}))


@pytest.mark.parametrize("admission", ["eager", "off", "cap:2"])
def test_nothing_may_be_promised_that_nobody_looks_at(admission: str) -> None:
    with pytest.raises(OptionError, match=r"^slo needs a server that was started with --multiverse-admission slack$"):
        server(admission=admission).for_request({"slo": {"tpot_ms": 50}})
    for name in ("tpot_slo_ms", "ttft_slo_ms"):
        with pytest.raises(OptionError, match=rf"^{name} needs --multiverse-admission slack"):
            server(admission=admission, **{name: "50"})
    assert server(admission=admission).for_request({"slo": {}}).slo == {}


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e9, 10**400, True, "50", None, [50]])
@pytest.mark.parametrize("name", ["tpot_ms", "deadline_ms"])
def test_a_time_that_can_not_be_waited_for_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"^slo: {name} must be a number of milliseconds above 0, at most 86400000"):
        server(admission="slack").for_request({"slo": {name: value}})


@pytest.mark.parametrize("slo", [50, "fast", [], {"ttft_ms": 50}, {"tpot": 50}])
def test_an_slo_that_is_none_is_refused(slo: Any) -> None:
    with pytest.raises(OptionError, match=r"^slo (must be an object|has no)"):
        server(admission="slack").for_request({"slo": slo})


@pytest.mark.parametrize("value", ["", "x", "0", "-5", "nan", "inf"])
def test_a_wrong_time_of_a_server_is_refused_at_start(value: str) -> None:
    with pytest.raises(OptionError, match=r"^tpot_slo_ms must be a number of milliseconds"):
        server(admission="slack", tpot_slo_ms=value)


def test_a_wrong_policy_is_refused_at_start() -> None:
    with pytest.raises(OptionError, match=r"^admission must be 'eager', 'off', 'cap:N' or 'slack', got 'lazy'$"):
        server(admission="lazy")
