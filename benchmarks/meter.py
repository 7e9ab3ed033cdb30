"""What a stretch of a benchmark costs, without what is not to count: CPU time, or machine instructions under callgrind.

Time depends on whatever else the machine does. Instructions hardly do, so one run of few steps tells a per cent.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

DUMPS = "MULTIVERSE_CALLGRIND_DUMPS"
"""Environment variable that is set under callgrind: the folder where it leaves its counts."""
REPEATS = 5
"""The least disturbed of so many runs counts, if it is time that is counted."""
SOURCE = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; CALLGRIND_TOGGLE_COLLECT; }
void toggle(void) { CALLGRIND_TOGGLE_COLLECT; }
void end(void) { CALLGRIND_TOGGLE_COLLECT; CALLGRIND_DUMP_STATS; CALLGRIND_STOP_INSTRUMENTATION; }
"""


class Meter:
    """Counts from `start` to `stop`, but not between `pause` and `resume`: microseconds, or instructions.

    Attributes:
        repeats: how many runs are worth it, of which the least counts.
    """

    def __init__(self) -> None:
        self._counts = False
        self._counter = _requests() if DUMPS in os.environ else None
        self.repeats = REPEATS if self._counter is None else 1

    def start(self) -> None:
        """Count from zero, from now on."""
        self._counts, self._amount, self._since = True, 0.0, time.thread_time_ns()
        if self._counter is not None:
            self._counter.begin()

    def pause(self) -> None:
        """Count no more until `resume`."""
        if not self._counts:
            return
        if self._counter is not None:
            self._counter.toggle()
        else:
            self._amount += time.thread_time_ns() - self._since

    def resume(self) -> None:
        """Go on."""
        if not self._counts:
            return
        if self._counter is not None:
            self._counter.toggle()
        else:
            self._since = time.thread_time_ns()

    def stop(self) -> float:
        """What was counted."""
        if self._counter is None:
            self.pause()
        self._counts = False
        if self._counter is None:
            return self._amount / 1000
        self._counter.end()
        dumps = sorted(Path(os.environ[DUMPS]).glob("dump*.*"), key=lambda file: int(file.suffix[1:]))
        (total,) = re.findall(r"^(?:totals|summary): (\d+)", dumps[-1].read_text(), re.MULTILINE)[-1:]
        return float(total)


@cache
def _requests() -> ctypes.CDLL:
    """The requests that callgrind takes from a program, which are macros of C."""
    folder = Path(os.environ[DUMPS])
    library = folder / "requests.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=SOURCE, text=True, check=True)
    return ctypes.CDLL(str(library))


def under_callgrind(command: list[str]) -> tuple[list[str], dict[str, str]]:
    """A command and additions to its environment, with which a `Meter` in it counts instructions.

    Raises:
        SystemExit: there is no valgrind, or no header of it.
    """
    folder = tempfile.mkdtemp(prefix="callgrind-")
    options = ["--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no", f"--callgrind-out-file={folder}/dump"]
    try:
        subprocess.run(["valgrind", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit("--instructions needs valgrind and a C compiler: apt-get install valgrind gcc libc6-dev")
    return ["valgrind", *options, *command], {DUMPS: folder, "PYTHONHASHSEED": "0"}
