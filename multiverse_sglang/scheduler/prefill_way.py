"""`--multiverse-prefill`: in which way prompts that hold blocks are computed; refused if it can't be."""

from __future__ import annotations

from multiverse.serving.hooks import missing
from multiverse.serving.refusals import present, refuse
from multiverse_sglang.channels import MASKS
from multiverse_sglang.host import Scheduler
from multiverse_sglang.mask_hooks import MASK_HOOKS
from multiverse_sglang.registry import require
from multiverse_sglang.scheduler.single_pass import obstacles, obstacles_to_segments


def prepare_prefill(scheduler: Scheduler, way: str) -> None:
    """Make what `way` (`Options.prefill`) needs.

    Raises:
        UnsupportedHostError: with everything that is in its way.
    """
    runner = scheduler.tp_worker.model_runner
    if way == "segments":
        _refuse(way, obstacles(scheduler) | obstacles_to_segments(runner))
    elif way == "mask":
        from multiverse_sglang.attention.masks import Masks, obstacles_to_masks  # FlashInfer, which takes seconds

        _refuse(way, obstacles(scheduler) | obstacles_to_masks(runner))
        require(missing(MASK_HOOKS))
        setattr(runner, MASKS, Masks(runner.attn_backend))


def _refuse(way: str, checks: dict[str, bool]) -> None:
    refuse(f"--multiverse-prefill {way} and {reason}" for reason in present(checks))
