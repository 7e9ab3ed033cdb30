"""The same run as a Ray Data job, for corpora beyond one machine.

The dataset's rows are shard numbers. Each task reads its share of the input and writes a store of its own into the
output directory, which all machines must see (a shared file system), so shards need nothing of each other and a lost
task is simply begun again. The ceilings of the endpoint are divided among the tasks that run at once.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from multiverse.curator.config import Config
from multiverse.curator.results import write_results
from multiverse.curator.run import Run, Summary, run_shard
from multiverse.curator.store import Shards
from multiverse.errors import RunError


def curate_on_ray(config: Config, shards: int, address: str | None = None, limit: int | None = None) -> Run:
    """Curate the whole input in `shards` tasks of one core each, and write all results.

    Args:
        address: of a Ray cluster; `None` for one on this machine. A Ray that is initialised already is used as it is.

    Raises:
        RunError: if Ray is missing, or a shard can't begin or go on; the others have gone on, and are not lost.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RunError("--ray needs Ray: pip install multiverse-engine[curate-ray]") from error
    Shards(config.output).begin(shards)
    if not ray.is_initialized():
        own = {} if address else {"include_dashboard": False}
        ray.init(address=address, log_to_driver=False, **own)
    output = config.output.absolute()
    at_once = max(1, min(shards, int(ray.cluster_resources().get("CPU", 1))))
    share = _share(config.model_copy(update={"output": output}), at_once)
    settings = share.model_dump(mode="json")

    def curate_row(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return asdict(run_shard(Config.model_validate(settings), int(row["id"]), shards, limit)) | {"error": ""}
        except Exception as error:  # what a row raises ends the whole job in Ray, with all other shards
            told = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            return {"chains": 0, "unfinished": 0, "error": told}

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.range(shards, override_num_blocks=shards).map(curate_row, num_cpus=1).take_all()
    if errors := [row["error"] for row in rows if row["error"]]:
        raise RunError(f"{len(errors)} of {shards} shards stopped, the first with: {errors[0]}")
    summary = Summary(max(row["chains"] for row in rows), sum(row["unfinished"] for row in rows))
    return Run(summary, write_results(config.output, summary.chains))


def _share(config: Config, tasks: int) -> Config:
    """What one of `tasks` that run at once may ask of the endpoint."""
    whole = config.endpoint
    part = {
        "concurrency": max(1, whole.concurrency // tasks),
        "requests_per_minute": whole.requests_per_minute and whole.requests_per_minute / tasks,
        "tokens_per_minute": whole.tokens_per_minute and whole.tokens_per_minute / tasks,
    }
    return config.model_copy(update={"endpoint": whole.model_copy(update=part)})
