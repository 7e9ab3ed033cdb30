"""The tasks in `lm-eval`: it asks a real server over HTTP, and our grader decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager
from program import KNOWN, Program, run

from multiverse.evaluation.harness.utils import process_results
from multiverse.evaluation.tasks import builtin_tasks


def test_lm_eval_knows_every_task() -> None:
    directory = run("harness").stdout.strip()
    manager = TaskManager(include_path=directory, include_defaults=False)
    assert sorted(manager.all_tasks) == [f"multiverse_{name}" for name in builtin_tasks()]


def test_repeats_that_a_filter_keeps_are_graded_one_by_one() -> None:
    """`take_first_k` hands a list where `take_first` hands a text."""
    doc = {"task": "embedded", "answer": "12"}
    assert process_results(doc, ["Answer: 12"]) == {"pass@1": 1.0}
    assert process_results(doc, [["Answer: 12", "Answer: 13", "no", "\\boxed{12}"]]) == {"pass@1": 0.5}


def test_lm_eval_asks_the_problems_and_takes_our_verdicts(start: Callable[..., tuple[Program, str]]) -> None:
    program, url = start(wrong=set(list(KNOWN)[:3]))
    results = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args={"model": "tiny", "base_url": f"{url}/chat/completions", "num_concurrent": 4},
        tasks=["multiverse_embedded"],
        task_manager=TaskManager(include_path=run("harness").stdout.strip(), include_defaults=False),
        apply_chat_template=True,
        limit=12,
        bootstrap_iters=0,
    )
    assert results["results"]["multiverse_embedded"]["pass@1,none"] == 9 / 12
    assert {body["messages"][-1]["content"] for body in program.seen} == set(list(KNOWN)[:12])
    assert Path(run("harness").stdout.strip()).is_dir()
