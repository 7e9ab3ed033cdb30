"""The progress bar of long runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def progress_bar(console: Console, what: str, total: int | None) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, nothing elsewhere. Gives the function that is called with the status of what is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    counts: Counter[str] = Counter()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def report(status: str) -> None:
            counts[status] += 1
            told = ", ".join(f"{count} {name}" for name, count in counts.items())
            bar.update(task, advance=1, description=told)

        yield report
