"""A whole run: every problem of every task with every seed, many at a time, each answer kept as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from multiverse.evaluation.config import Config
from multiverse.evaluation.problems import Problem, checksum, load_problems
from multiverse.evaluation.results import Results, described
from multiverse.evaluation.samples import Describer, Sample, describer
from multiverse.evaluation.server import check_server, serving
from multiverse.evaluation.tasks import Task, load_task
from multiverse.harness.endpoint import Client, RefusedError, UnavailableError
from multiverse.harness.reply_store import Reply, ReplyStore, alone, request_key

Progress = Callable[[str], None]
"""Called with `answered`, `known`, `refused` or `unfinished` whenever a sample is done."""


def silent(status: str) -> None:
    """The progress that nobody looks at."""


@dataclass(frozen=True)
class Job:
    """One sample to be taken.

    Attributes:
        again: the same as another, to see whether the server keeps seeds; no sample comes of it.
    """

    task: Task
    problem: Problem
    seed: int
    again: bool = False

    def request(self, config: Config) -> tuple[str, str, list[dict[str, str]], dict[str, Any], int]:
        """What identifies the request: stage, model, messages, parameters, number."""
        messages = self.task.messages(self.problem.question, self.problem.choices, config.mode)
        stage = f"{self.task.name}, again" if self.again else self.task.name
        return stage, config.model, messages, config.request(self.seed), self.seed


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        refused: samples that the server won't give, with its words.
        unfinished: samples that it did not give; a further run asks again.
        warnings: what should make one doubt the results.
    """

    results: Results
    refused: list[str] = field(default_factory=list)
    unfinished: int = 0
    warnings: list[str] = field(default_factory=list)


def evaluate(config: Config, home: Path, progress: Progress = silent) -> Outcome:
    """Run, or go on where an earlier run was interrupted.

    Args:
        home: where relative paths of tasks start.

    Raises:
        RunError: if the run can't begin or go on. What was answered until then is kept.
    """
    describe = describer(config.dialect, config.tokenizer, config.mode != "sequential")
    tasks = [load_task(given, home) for given in config.tasks]
    problems = {task.name: load_problems(task)[: config.limit] for task in tasks}
    jobs = [Job(t, p, seed) for t in tasks for p in problems[t.name] for seed in config.seeds]
    outcome = Outcome(Results(config.output.name, _about(config, tasks, problems), []))
    path = config.output / "store.sqlite"
    with alone(path), ReplyStore(path) as store:
        first, again = jobs[:1], [replace(job, again=True) for job in jobs[:1] if len(config.seeds) > 1]
        missing = [job for job in jobs + again if store.reply(request_key(*job.request(config))) is None]
        for _ in range(len(jobs + again) - len(missing)):
            progress("known")
        if missing:
            with serving(config.serve, config.endpoint, config.output / "server.log"):
                check_server(config)
                asyncio.run(_ask_all(config, store, missing, outcome, progress))
        outcome.results.samples.extend(_samples(config, store, jobs, describe))
        outcome.warnings = _doubts(config, outcome.results.samples)
        texts = {reply.text for job in first + again if (reply := store.reply(request_key(*job.request(config))))}
    if len(texts) > 1:
        outcome.warnings.append(
            "one question was asked twice with one seed, and answered otherwise: this server does not keep seeds"
            " (SGLang does with --enable-deterministic-inference), so the run can't be repeated"
        )
    return outcome


async def _ask_all(
    config: Config, store: ReplyStore, jobs: Sequence[Job], outcome: Outcome, progress: Progress
) -> None:
    client, work = Client(config.endpoint, store), iter(jobs)

    async def worker() -> None:
        for job in work:
            try:
                await client.ask(*job.request(config))
                progress("answered")
            except RefusedError as error:
                outcome.refused.append(f"{job.task.name} {job.problem.id}: {error}")
                progress("refused")
            except UnavailableError:
                outcome.unfinished += 1
                progress("unfinished")

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(config.endpoint.concurrency, len(jobs))):
                workers.create_task(worker())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await client.close()


def _samples(config: Config, store: ReplyStore, jobs: Sequence[Job], describe: Describer) -> Iterator[Sample]:
    for job in jobs:
        reply: Reply | None = store.reply(request_key(*job.request(config)))
        if reply is not None:
            task, problem = job.task, job.problem
            yield describe.describe(task.name, problem.id, job.seed, task.grader, problem.answer, reply)


def _about(config: Config, tasks: Sequence[Task], problems: dict[str, list[Problem]]) -> dict[str, Any]:
    told = {
        task.name: {
            "source": task.source,
            "licence": task.licence,
            "problems": len(problems[task.name]),
            "sha256": checksum(problems[task.name]),
        }
        for task in tasks
    }
    settings = config.model_dump(mode="json", exclude={"output", "tasks", "endpoint", "serve"})
    return described(told, base_url=config.endpoint.base_url, concurrency=config.endpoint.concurrency, **settings)


def _doubts(config: Config, samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return []
    doubts = []
    if config.mode == "parallel" and not any(sample.blocks for sample in samples):
        doubts.append(
            f"no answer holds a block: does {config.model} know the tags of the dialect {config.dialect}, and does the"
            " server show them (they must not be special tokens)?"
        )
    cut = sum(sample.finish_reason == "length" for sample in samples)
    if cut:
        doubts.append(f"{cut} of {len(samples)} answers were cut off at max_tokens = {config.max_tokens}")
    return doubts
