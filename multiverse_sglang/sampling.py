"""Sampling parameters of branches, where a client wants others than outside of them."""

from __future__ import annotations

import copy

from sglang.srt.sampling.sampling_params import TOP_K_ALL, SamplingParams

from multiverse.errors import OptionError
from multiverse.serving.options import Options

_ANY_VOCABULARY = 1 << 31


def check_branch_sampling(options: Options, top_k: int = TOP_K_ALL) -> SamplingParams:
    """What `branch_sampling` says as SGLang's `SamplingParams`.

    Raises:
        OptionError: if SGLang does not accept it.
    """
    try:
        checked = SamplingParams(top_k=top_k, **(options.branch_sampling or {}))
        checked.verify(_ANY_VOCABULARY)
    except (TypeError, ValueError) as error:
        raise OptionError(f"branch_sampling: {error}") from None
    return checked


def in_branches(parameters: SamplingParams, options: Options) -> SamplingParams:
    """The sampling parameters of a branch of a request with `parameters`: a copy."""
    changed = copy.copy(parameters)
    wanted = options.branch_sampling or {}
    if "temperature" in wanted and changed.top_k == 1:
        changed.top_k = TOP_K_ALL  # which is how SGLang writes that the request itself is greedy
    if wanted:
        checked = check_branch_sampling(options, changed.top_k)
        for name in (*wanted, "top_k"):
            setattr(changed, name, getattr(checked, name))
    return changed
