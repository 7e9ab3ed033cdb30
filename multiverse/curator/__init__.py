"""The Curator: from sequential reasoning to Multiverse training data, with any language model behind an
OpenAI-compatible endpoint. Needs `pip install multiverse-engine[curate]`; docs/curating.md is the guide.

    from multiverse.curator import curate, load_config

    run = curate(load_config("config.yaml"))
    print(run.statistics.accepted, "of", run.statistics.chains)
"""

from multiverse.curator.chains import Chain, Problem, read_chains
from multiverse.curator.config import Config, load_config
from multiverse.curator.distributed import curate_on_ray
from multiverse.curator.outcome import Outcome
from multiverse.curator.pipeline import Curator
from multiverse.curator.run import Run, curate
from multiverse.curator.stages import GroupSteps, Judge, Reduce, RefillSteps, Restructure, Stage, Summary
from multiverse.curator.statistics import CorpusStatistics
from multiverse.curator.store import Store
from multiverse.errors import RunError
from multiverse.harness.endpoint import Client

__all__ = [
    "Chain",
    "Client",
    "Config",
    "CorpusStatistics",
    "Curator",
    "GroupSteps",
    "Judge",
    "Outcome",
    "Problem",
    "Reduce",
    "RefillSteps",
    "Restructure",
    "Run",
    "RunError",
    "Stage",
    "Store",
    "Summary",
    "curate",
    "curate_on_ray",
    "load_config",
    "read_chains",
]
