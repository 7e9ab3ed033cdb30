"""A release of a host: tested, untested with all that is asked for, or lacking something."""

from __future__ import annotations

import sys
import types

import pytest

from multiverse.errors import OptionError
from multiverse.serving.hooks import Hook, needed
from multiverse.serving.options import Options, take_flags
from multiverse.serving.support import Support

NAME = "a_host_for_test_support"
THERE, GONE = (Hook(f"{NAME}:{name}", (), True, "why", "1.0", "never") for name in ("step", "gone"))


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(NAME)
    module.step = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, NAME, module)


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1", "0.32.0+cpu", "0.5.22"])
def test_a_tested_release_runs_if_it_has_all_rows(version: str) -> None:
    support = Support("Host", version, ("0.32.*", "0.5.22"), tries=False)
    assert support.problems([THERE]) == []
    assert support.warning() is None
    (problem,) = support.problems([THERE, GONE])
    assert f"{NAME}:gone is not there" in problem


@pytest.mark.parametrize("version", ["0.33.0", "0.320.0", "0.5.22.post1", "0.5.220"])
def test_an_untested_one_says_how_to_try_it_and_then_runs_with_a_warning(version: str) -> None:
    (problem,) = Support("Host", version, ("0.32.*", "0.5.22"), tries=False).problems([THERE])
    assert f"Host {version} was never tested; known are 0.32.*, 0.5.22" in problem
    assert "--multiverse-untested-host" in problem
    tried = Support("Host", version, ("0.32.*", "0.5.22"), tries=True)
    assert tried.problems([THERE]) == []
    assert version in str(tried.warning())


def test_one_that_lacks_something_is_refused_always() -> None:
    for tries in (False, True):
        problems = Support("Host", "0.33.0", ("0.32.*",), tries).problems([THERE, GONE])
        assert any(f"{NAME}:gone" in problem for problem in problems)
        assert not any("--multiverse-untested-host" in problem for problem in problems)


@pytest.mark.parametrize("given", ["--multiverse-untested-host", "--multiverse-untested-host=1"])
def test_the_flag_takes_no_value(given: str) -> None:
    arguments, environment = ["serve", given, "model"], {}
    take_flags(arguments, environment)
    assert arguments == ["serve", "model"]
    assert Options.from_environment(environment).untested_host
    assert not Options.from_environment({}).untested_host
    with pytest.raises(OptionError, match="untested_host must be 0 or 1"):
        take_flags(["serve", "--multiverse-untested-host=maybe"], {})


def test_a_row_that_came_with_a_later_release_is_not_asked_of_an_older_one() -> None:
    late = Hook(f"{NAME}:gone", (), True, "why", "1.2", "never")
    assert needed([THERE, late], "1.1.9") == (THERE,)
    assert needed([THERE, late], "1.2.0+cpu") == (THERE, late)
    assert needed([THERE, late], "1.10") == (THERE, late)
