"""In which releases of a host an adapter runs: those that it was tested with, and others if somebody wants to try."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch

from multiverse.serving.hooks import Hook, missing
from multiverse.serving.options import flag

TRY = flag("untested_host")


@dataclass(frozen=True)
class Support:
    """What is known of the installed release of a host.

    Attributes:
        host: its name.
        version: which one is installed.
        tested: the releases that the adapter was tested with, as patterns.
        tries: whether the operator wants to try another one.
    """

    host: str
    version: str
    tested: tuple[str, ...]
    tries: bool

    @property
    def is_tested(self) -> bool:
        """Whether the adapter was tested with this release, whatever it was built for."""
        return any(fnmatch(self.version.partition("+")[0], pattern) for pattern in self.tested)

    def problems(self, rows: Iterable[Hook]) -> list[str]:
        """Why the plugin can't run, as far as these rows of the hook table tell; empty if it can."""
        absent = missing(rows)
        if self.is_tested or (self.tries and not absent):
            return absent
        untested = f"{self.host} {self.version} was never tested; known are {', '.join(self.tested)}"
        if absent:
            return [untested, *absent]
        return [f"{untested}. It has all that the hook table asks for: {TRY} tries it"]

    def warning(self) -> str | None:
        """What an operator has to know about a release that is tried."""
        if self.is_tested:
            return None
        return f"multiverse: {self.host} {self.version} was never tested and runs because of {TRY}: compare its answers"
