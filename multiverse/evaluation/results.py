"""The files of a run: `samples.jsonl`, `results.json`, `report.md` and plots. Each is replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiverse.errors import RunError
from multiverse.evaluation.plots import plot_samples
from multiverse.evaluation.samples import Sample
from multiverse.evaluation.scores import Score, scores
from multiverse.harness.answers import release

RESULTS, SAMPLES, REPORT, PLOT = "results.json", "samples.jsonl", "report.md", "report.png"


@dataclass(frozen=True)
class Results:
    """A run.

    Attributes:
        about: what was run on what: model, mode, tasks with checksums and licences, settings.
    """

    name: str
    about: dict[str, Any]
    samples: list[Sample]

    def scores(self) -> list[Score]:
        """The figures of each task."""
        return scores(self.samples)

    def checksum(self, task: str) -> str | None:
        """Of the problems of a task, if known."""
        found: str | None = self.about.get("tasks", {}).get(task, {}).get("sha256")
        return found


def write_results(output: Path, results: Results) -> None:
    """Write all files of a run."""
    output.mkdir(parents=True, exist_ok=True)
    rows = results.scores()
    replace(output / SAMPLES, "".join(json.dumps(s.to_dict(), ensure_ascii=False) + "\n" for s in results.samples))
    document = {"name": results.name, "about": results.about, "scores": [row.to_dict() for row in rows]}
    replace(output / RESULTS, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    plot_samples(results.samples, rows, output / PLOT)
    replace(
        output / REPORT,
        f"# {results.name}\n\n{markdown(rows)}\n\n{_sent(results.about)}{_graded(results.about)}"
        f"![Figures of the run]({PLOT})\n",
    )


def read_results(output: Path) -> Results:
    """Read what `write_results` wrote.

    Raises:
        RunError: if it is not there or damaged, naming file and line.
    """
    try:
        document = json.loads((output / RESULTS).read_text(encoding="utf-8"))
        lines = (output / SAMPLES).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        name, about = document["name"], document["about"]
    except OSError as error:
        raise RunError(
            f"{error.filename}: can't be read ({error.strerror}); is {output} the output of a run?"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{output / RESULTS}: is damaged ({error}); run it again, nothing is asked twice") from error
    samples = []
    for number, line in enumerate(lines, 1):
        try:
            samples.append(Sample.from_dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            place = f"{output / SAMPLES}:{number}"
            raise RunError(f"{place}: is damaged ({error}); run it again, nothing is asked twice") from error
    return Results(name, about, samples)


def markdown(rows: Sequence[Score]) -> str:
    """The figures of a run as a table."""
    shares = ("pass@1 % (95 %)", "no answer %", "trigger %", "well formed %")
    return table(
        ("task", "problems", "samples", *shares, "#parallel", "critical path", "tokens", "seconds", "fallbacks"),
        [
            (
                row.task,
                row.problems,
                row.samples,
                f"{row.accuracy:.1%} ({row.low:.1%} to {row.high:.1%})".replace("%", ""),
                f"{100 * row.no_answer:.1f}",
                f"{100 * row.trigger_rate:.1f}",
                f"{100 * row.well_formed:.1f}",
                f"{row.parallel_degree:.2f}",
                f"{row.critical_path:,.0f}",
                f"{row.tokens:,.0f}{' (approximate)' if 'text' in row.counted else ''}",
                f"{row.seconds:.2f}" if row.seconds else "",
                ", ".join(f"{reason} {count}" for reason, count in row.fallbacks.items()),
            )
            for row in rows
        ],
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _sent(about: Mapping[str, Any]) -> str:
    """What requests said about sampling; hosts fill in what they don't say, not all in the same way."""
    if (parameters := about.get("parameters")) is None:
        return ""
    if "temperature" in parameters:
        return f"Temperature {parameters['temperature']} was sent.\n\n"
    return "No temperature was sent: the server chose it.\n\n"


def _graded(about: Mapping[str, Any]) -> str:
    """Whose verdicts these are: another release may give others."""
    return f"Mathematics was compared by {about['graded_with']}.\n\n" if about.get("graded_with") else ""


def replace(path: Path, text: str) -> None:
    """Write `text` so that `path` is never half written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def described(tasks: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """What a run tells about itself."""
    import multiverse

    return {
        "multiverse": multiverse.__version__,
        "graded_with": release(),
        "tasks": {name: dict(task) for name, task in tasks.items()},
        **more,
    }
