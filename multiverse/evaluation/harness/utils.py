"""What the YAML files beside this one refer to: problems, prompts and grading are those of `multiverse eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiverse.evaluation.grading import Verdict, grade
from multiverse.evaluation.problems import load_problems
from multiverse.evaluation.tasks import load_task


def dataset(task: str, **_: Any) -> dict[str, Any]:
    """The problems of a task, as `lm-eval` takes them: `metadata.task` of the YAML file comes here."""
    import datasets

    found = load_task(task, Path())
    rows = [
        {
            "task": task,
            "prompt": found.messages(problem.question, problem.choices, "plain")[-1]["content"],
            "answer": problem.answer,
        }
        for problem in load_problems(found)
    ]
    return {"test": datasets.Dataset.from_list(rows)}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 if the answer is right."""
    grader = load_task(doc["task"], Path()).grader
    return {"pass@1": float(grade(grader, doc["answer"], results[0]).verdict is Verdict.CORRECT)}
