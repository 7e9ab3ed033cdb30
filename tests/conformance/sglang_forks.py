"""Processes forked from one that has imported SGLang's scheduler, which takes 11 CPU seconds, and done nothing else."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["sglang.srt.managers.scheduler"])


class Ended(NamedTuple):
    """How a program ended, and what it wrote to standard error."""

    returncode: int
    stderr: str


def _run(code: str, errors: str) -> None:
    with open(errors, "w") as file:
        os.dup2(file.fileno(), 2)
    exec(code, {"__name__": "__main__"})


def python(code: str) -> Ended:
    """Run a program as `python -c` would."""
    with TemporaryDirectory() as directory:
        errors = Path(directory, "stderr")
        process = FORKS.Process(target=_run, args=(code, str(errors)))
        process.start()
        process.join(240)
        process.kill()
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, errors.read_text())
