"""Results as one page of text: what was tried, in which order, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import STAGES

if TYPE_CHECKING:
    from running import Outcome, Results

PAGE = "page.txt"


def write(results: Results) -> None:
    """Into the folder of the results."""
    (results.output / PAGE).write_text("\n".join(lines(results)) + "\n")


def lines(results: Results) -> list[str]:
    about = results.about
    rehearsed = "a CPU: a rehearsal, in which no kernel of a GPU ran"
    where = about.get("card") or (rehearsed if about["device"] == "cpu" else "no card that was found")
    page = [f"Multiverse on {where}", f"{about['date']}, commit {about['commit']}"]
    for name, releases in about["releases"].items():  # type: ignore[attr-defined]
        page.append(f"{name}: {', '.join(releases) or 'nothing of ours'}")
        page += [f"  {label}" for label in [about.get("labels", {}).get(name)] if label]  # type: ignore[attr-defined]
    for stage in STAGES:
        found = [outcome for outcome in results.outcomes if outcome.stage == stage.name]
        if found:
            page += ["", f"{stage.name}: {stage.title}", *(line for outcome in found for line in _lines(outcome))]
    states = [outcome.state for outcome in results.outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return [*page, "", f"In all: {counts or 'nothing was tried'}."]


def _lines(outcome: Outcome) -> list[str]:
    shown = [f"  {outcome.state:<13}{outcome.what} ({outcome.seconds:.0f} s)"]
    if outcome.why:
        shown.append(f"{'':15}{outcome.why}")
    shown += [f"{'':15}{name} {value:.4g}" for name, value in outcome.figures.items()]
    if outcome.state == "failed":
        shown += [f"{'':15}| {line[:100]}" for line in outcome.tail[-8:]]
    return shown
