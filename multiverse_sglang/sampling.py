"""Sampling parameters of branches, where a client wants others than outside of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from sglang.srt.runtime_context import get_exec
from sglang.srt.sampling.sampling_params import SamplingParams

from multiverse.errors import OptionError
from multiverse.serving.field import changed_in_branches
from multiverse.serving.options import Options

_ANY_VOCABULARY = 1 << 31
_GREEDY = 1
"""The `top_k` of a greedy request: how SGLang writes `temperature` 0."""


def check_branch_sampling(options: Options) -> None:
    """Refuse what `branch_sampling` says if SGLang does, or would fail at it later.

    Raises:
        OptionError: naming what SGLang does not accept.
    """
    wanted = options.branch_sampling or {}
    _checked(wanted)
    if wanted.get("min_p") and get_exec().deterministic.enable_deterministic_inference:
        raise OptionError("branch_sampling: SGLang has no min_p under --enable-deterministic-inference")


def in_branches(parameters: SamplingParams, options: Options) -> SamplingParams:
    """The sampling parameters of a branch of a request with `parameters`: a copy."""
    changed = copy.copy(parameters)
    changes = changed_in_branches(options.branch_sampling or {}, greedy=parameters.top_k == _GREEDY)
    if changes:
        changes = {"top_k": parameters.top_k} | changes  # which `temperature` 0 sets too
        checked = _checked(changes)
        for name in changes:
            setattr(changed, name, getattr(checked, name))
    return changed


def _checked(given: Mapping[str, float]) -> SamplingParams:
    try:
        checked = SamplingParams(**given)
        checked.verify(_ANY_VOCABULARY)
    except (TypeError, ValueError) as error:
        raise OptionError(f"branch_sampling: {error}") from None
    return checked
