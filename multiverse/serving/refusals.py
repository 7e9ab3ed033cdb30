"""What blocks can't work with is refused by name, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from multiverse.errors import UnsupportedHostError


def present(checks: Mapping[str, bool]) -> list[str]:
    """The names of the checks that hold."""
    return [name for name, holds in checks.items() if holds]


def refuse(reasons: Iterable[str]) -> None:
    """Raise UnsupportedHostError with all `reasons`, if there are any."""
    if found := list(reasons):
        raise UnsupportedHostError(f"multiverse does not work with {'; '.join(found)}")
