"""A whole run on this machine: many chains at a time, the store, progress, and the results at the end.

Chains are read as they are needed and forgotten when they are done, so memory does not grow with the corpus.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from multiverse.curator import prompting
from multiverse.curator.chains import Chain, Problem, read_chains
from multiverse.curator.config import Config
from multiverse.curator.likelihood import LikelihoodTest
from multiverse.curator.outcome import unreadable
from multiverse.curator.pipeline import Curator
from multiverse.curator.results import write_results
from multiverse.curator.statistics import CorpusStatistics
from multiverse.curator.store import Shards, Store
from multiverse.harness.endpoint import Client, UnavailableError
from multiverse.harness.reply_store import alone
from multiverse.structure.dialects import registry

Progress = Callable[[str], None]
"""Called with `accepted`, `rejected`, `unfinished` or `known` whenever a chain is done."""


def silent(status: str) -> None:
    """The progress that nobody looks at."""


@dataclass
class Summary:
    """How a shard went.

    Attributes:
        chains: records of the whole input.
        unfinished: chains for which the endpoint gave no answer; a further run goes on with them.
    """

    chains: int = 0
    unfinished: int = 0


@dataclass
class Run:
    """What a run came to."""

    summary: Summary
    statistics: CorpusStatistics


def curate(config: Config, limit: int | None = None, progress: Progress = silent) -> Run:
    """Curate the whole input, or go on where an earlier run was interrupted, and write all results.

    Args:
        limit: take only so many records of the input.

    Raises:
        RunError: if the run can't begin or go on. What was done until then is kept.
    """
    Shards(config.output).begin(1)
    summary = run_shard(config, 0, 1, limit, progress)
    return Run(summary, write_results(config.output, summary.chains))


def run_shard(config: Config, shard: int, count: int, limit: int | None = None, progress: Progress = silent) -> Summary:
    """Curate every `count`-th record of the input, from `shard` on, into a store of its own."""
    path = Shards(config.output).path(shard, count)
    with alone(path), Store(path) as store:
        return asyncio.run(_Worker(config, store, progress).run(shard, count, limit))


_CHAINS_PER_REQUEST = 2
"""Chains under way per request that may be: while one is being checked, another has a request ready."""


class _Worker:
    """Keeps so many chains under way that the endpoint always has all the requests it takes."""

    def __init__(self, config: Config, store: Store, progress: Progress) -> None:
        self.config, self.store, self.progress = config, store, progress
        self.summary = Summary()
        self._settings = config.fingerprint() + prompting.fingerprint()

    async def run(self, shard: int, count: int, limit: int | None) -> Summary:
        """Take every chain of the shard through the stages."""
        client = Client(self.config.endpoint, self.store)
        try:
            curator = Curator(self.config, client, self._likelihood())
            work = self._todo(shard, count, limit)
            async with asyncio.TaskGroup() as workers:
                for _ in range(_CHAINS_PER_REQUEST * self.config.endpoint.concurrency):
                    workers.create_task(self._work(curator, work))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await client.close()
        return self.summary

    def _likelihood(self) -> LikelihoodTest | None:
        settings = self.config.checks.likelihood
        return LikelihoodTest(settings, registry.get(self.config.dialect)) if settings else None

    def _todo(self, shard: int, count: int, limit: int | None) -> Iterator[tuple[Chain, str]]:
        """The chains of this shard that have no outcome yet, each with its fingerprint."""
        for record in itertools.islice(read_chains(self.config.input), limit):
            self.summary.chains += 1
            if record.position % count != shard:
                continue
            if isinstance(record, Problem):
                self.store.put_outcome(record.position, record.message, unreadable(record).to_dict())
                self.progress("rejected")
                continue
            fingerprint = hashlib.sha256((record.fingerprint + self._settings).encode()).hexdigest()
            if self.store.has_outcome(record.position, fingerprint):
                self.progress("known")
            else:
                self.store.drop_outcome(record.position)  # of other settings or another chain
                yield record, fingerprint

    async def _work(self, curator: Curator, work: Iterator[tuple[Chain, str]]) -> None:
        for chain, fingerprint in work:
            try:
                outcome = await curator.curate(chain)
            except UnavailableError:
                self.summary.unfinished += 1
                self.progress("unfinished")
                continue
            self.store.put_outcome(chain.position, fingerprint, outcome.to_dict())
            self.progress(outcome.status)
