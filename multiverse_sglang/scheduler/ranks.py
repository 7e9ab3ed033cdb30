"""All ranks of a tensor-parallel host have the plugin, with the same options: else their schedules part, and they hang.

A rank without the plugin takes part in no call of ours. So each rank says in the store by which they found each other
that it is there, and waits for the others to say the same.
"""

from __future__ import annotations

from datetime import timedelta

from torch import distributed

from multiverse.errors import UnsupportedHostError
from multiverse.serving.options import Options

PATIENCE = timedelta(seconds=60)
"""How long ranks may take for the rest of their start, one longer than another."""


def check_ranks() -> None:
    """Compare the options of all ranks of this scheduler.

    Raises:
        UnsupportedHostError: naming the ranks that are without the plugin, or have other options.
    """
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        store = distributed.distributed_c10d._get_default_store()
        compare(store, distributed.get_rank(), distributed.get_world_size(), repr(Options.from_environment()))


def compare(store: distributed.Store, rank: int, world: int, options: str, patience: timedelta = PATIENCE) -> None:
    """Say in `store` that this `rank` of a `world` is there with these `options`, and hear it of the others.

    Raises:
        UnsupportedHostError: see `check_ranks`.
    """
    keys = [f"multiverse/rank/{other}" for other in range(world)]
    store.set(keys[rank], options)
    try:
        store.wait(keys, patience)
    except distributed.DistError as error:
        absent = [str(other) for other, key in enumerate(keys) if not store.check([key])]
        raise UnsupportedHostError(
            f"rank {', '.join(absent)} of {world} runs without multiverse: start every node with --plugin multiverse"
        ) from error
    if others := [str(other) for other, key in enumerate(keys) if store.get(key).decode() != options]:
        raise UnsupportedHostError(
            f"rank {', '.join(others)} of {world} has other multiverse options than rank {rank}: start every node with "
            "the same --multiverse-* flags"
        )
