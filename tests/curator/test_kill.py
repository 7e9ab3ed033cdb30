"""A run that is killed again and again comes to the same end, and asks nothing again that it had been answered.

The teacher kills: the moments are spread over the whole work, before and after replies, and the first ones may fall
into the start of the process.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

from curating import ROOT, Configure, Serve, command, lines, run
from teacher import Teacher
from tiers import Sizes

CONCURRENCY = 4
RESULTS = ("train.jsonl", "rejected.jsonl", "artefacts.jsonl", "report.json")


def kill_after(teacher: Teacher, arguments: list[str], events: int, before: bool) -> bool:
    """Start the command and kill it at a certain event. Whether it was still at work then."""
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {"OPENAI_API_KEY": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    left = [events]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(process.pid, signal.SIGKILL)

    hook: Callable[[], None] = lambda: None  # noqa: E731
    teacher.before_answer, teacher.after_answer = (count, hook) if before else (hook, count)
    process.wait()
    teacher.before_answer = teacher.after_answer = hook
    while teacher.active:
        time.sleep(0.005)
    return process.returncode == -signal.SIGKILL


def stored(output: Path) -> int:
    """How many replies the store holds."""
    paths = list((output / "store").glob("*.sqlite"))
    if not paths:
        return 0
    with closing(sqlite3.connect(paths[0])) as db:
        return int(db.execute("SELECT COUNT(*) FROM replies").fetchone()[0])


def test_killed_at_twenty_moments_and_resumed_it_comes_to_the_same_end_and_asks_nothing_twice(
    teach: Serve, configure: Configure, tmp_path: Path, sizes: Sizes
) -> None:
    rng = Random(20)
    chains = 34
    _, calm_url = teach(faults=0.3, hang=0.2)
    settings = {"endpoint": {"concurrency": CONCURRENCY, "timeout": 10}}
    assert run(configure(calm_url, chains, name="calm", **settings)).returncode == 0
    teacher, url = teach(faults=0.3, latency=0.005, hang=0.2)
    config = configure(url, chains, name="killed", **settings)
    output = tmp_path / "killed"
    lost = 0  # replies that were on their way at the moment of a kill
    for _ in range(sizes.kills):
        assert kill_after(teacher, command(config), rng.randint(1, 16), rng.random() < 0.5)
        now = len(teacher.answered) - stored(output)
        assert lost <= now <= lost + CONCURRENCY
        lost = now
    assert run(config).returncode == 0
    assert len(teacher.answered) - stored(output) == lost
    assert stored(output) == stored(tmp_path / "calm")
    for name in RESULTS:
        assert (output / name).read_bytes() == (tmp_path / "calm" / name).read_bytes(), name
    assert len(lines(output / "train.jsonl")) >= 0.95 * chains


def heed_interrupts() -> None:
    """A shell lets its background jobs ignore interrupts, and a test may run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_from_the_keyboard_ends_the_run_and_keeps_what_was_done(
    teach: Serve, configure: Configure, tmp_path: Path
) -> None:
    teacher, url = teach(latency=0.3)  # so that it is far from its end when the signal comes
    config = configure(url, 12)
    process = subprocess.Popen(command(config), cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)  # noqa: PLW1509
    while len(teacher.answered) < 10:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.strip() == "interrupted"
    kept = stored(tmp_path / "run")
    assert kept >= 2
    assert run(config).returncode == 0
    assert len(lines(tmp_path / "run" / "train.jsonl")) == 12
