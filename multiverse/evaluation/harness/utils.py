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


def process_results(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """The share of right answers: with `repeats` and a filter that keeps several, `lm-eval` hands a list of them."""
    grader = load_task(doc["task"], Path()).grader
    texts = [text for result in results for text in (result if isinstance(result, list) else [result])]
    right = [grade(grader, doc["answer"], text).verdict is Verdict.CORRECT for text in texts]
    return {"pass@1": sum(right) / len(right)}
