"""Contracts: what outside software does that our code or pages rely on. Each names the releases that it was seen with,
and what of ours depends on it.

A contract fails if the behaviour changes. It also fails if another release is installed: look at what it says of that
one, then name it. `core`, `vllm` and `sglang` run in the environment of that name, `clients` in those of both hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def pytest_configure(config: pytest.Config) -> None:
    line = "contract(package, *releases, ours): what `package` does in `releases`, and what of ours relies on it"
    config.addinivalue_line("markers", line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    package, releases, ours = contract(item)
    installed = metadata.version(package).split("+")[0]
    assert (ROOT / ours).is_file(), f"{ours} is not there any more"
    if installed not in releases:
        told = f"seen with {package} {' and '.join(releases)}, but {installed} is installed"
        pytest.fail(f"{told}: see whether it still holds for {ours}, then name the release here", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    report.sections.append(("relies on this", contract(item)[2]))
    return report


def contract(item: pytest.Item) -> tuple[str, tuple[str, ...], str]:
    """The package, its releases, and what of ours depends on what is tested."""
    marker = item.get_closest_marker("contract")
    assert marker, f"{item.name} names no release"
    package, *releases = marker.args
    return package, tuple(releases), marker.kwargs["ours"]
