"""A virtual environment below .venvs: what is finished in it, and whether that is still whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENVS = ROOT / ".venvs"
UNFINISHED = ".unfinished"


class Environment:
    """One directory of .venvs, completed by one or more steps."""

    def __init__(self, name: str) -> None:
        self.path = VENVS / name
        self.python = self.path / "bin/python"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in this environment: a second set-up waits."""
        VENVS.mkdir(exist_ok=True)
        with (VENVS / f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """While packages change. What was begun and not ended, however it was interrupted, is made anew next time."""
        mark = self.path / UNFINISHED
        if mark.exists() or self._missing():
            print(f"   {self.path.name} is half there: made anew", flush=True)
            shutil.rmtree(self.path)
        self.path.mkdir(exist_ok=True)
        mark.touch()
        yield
        mark.unlink()

    def finished(self, step: str, wanted: str) -> bool:
        """Whether a step was finished as `wanted` says, and no file has gone since."""
        stamp = self._stamp(step)
        unfinished = (self.path / UNFINISHED).exists()
        return not unfinished and stamp.exists() and stamp.read_text() == wanted and not self._missing()

    def finish(self, step: str, wanted: str) -> None:
        self._stamp(step).write_text(wanted)

    def _stamp(self, step: str) -> Path:
        return self.path / f".{step}.stamp"

    def _missing(self) -> bool:
        """Whether a file is gone that an installed package lists."""
        for site in self.path.glob("lib/python*/site-packages"):
            there = {os.path.join(top, file) for top, _, files in os.walk(site) for file in files}
            for record in site.glob("*.dist-info/RECORD"):
                for line in record.read_text().splitlines():
                    file = line.rsplit(",", 2)[0].strip('"')
                    if file.startswith("..") or file.endswith(".pyc"):
                        continue
                    if f"{site}/{file}" not in there:
                        return True
        return False
