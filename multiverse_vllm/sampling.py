"""Sampling parameters of requests: the options in them, whether they leave room for blocks, those of branches."""

from __future__ import annotations

import msgspec
from vllm import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.request import Request

from multiverse.errors import OptionError
from multiverse.serving.field import changed_in_branches
from multiverse.serving.options import Options
from multiverse.wire.responses import STRUCTURED_OUTPUTS
from multiverse_vllm.channels import OPTIONS


def request_options(server: Options, params: SamplingParams) -> Options:
    """The options of a request.

    Args:
        server: the server's own.
        params: the request's, pooling parameters included; the options are under `OPTIONS` in their `extra_args`.

    Raises:
        OptionError: naming the field, its value and what is allowed.
    """
    given = (getattr(params, "extra_args", None) or {}).get(OPTIONS)
    options = server.for_request(given)
    if given is not None and options.enabled and getattr(params, "structured_outputs", None) is not None:
        raise OptionError(STRUCTURED_OUTPUTS)
    if given is not None and options.enabled and getattr(params, "thinking_token_budget", None) is not None:
        raise OptionError("thinking_token_budget counts the tokens of one sequence, blocks make several")
    if options.branch_sampling:
        in_branches(params, options)
    return options


def in_branches(params: SamplingParams, options: Options) -> SamplingParams:
    """The sampling parameters of a branch of a request with `params`: a copy.

    Raises:
        OptionError: if vLLM does not accept what `branch_sampling` says.
    """
    if not options.branch_sampling:
        return params.clone()
    from vllm.exceptions import VLLMValidationError

    changes = changed_in_branches(options.branch_sampling, greedy=params.temperature == 0 or params.top_k == 1)
    try:
        return msgspec.structs.replace(params.clone(), n=1, **changes)
    except (ValueError, VLLMValidationError) as error:
        raise OptionError(f"branch_sampling: {error}") from None


def may_fork(server: Options, request: Request | EngineCoreRequest, params: SamplingParams) -> Options | None:
    """The options of `request`, if a scheduler lets it hold blocks."""
    if params is None or request.prompt_token_ids is None or request.resumable:
        return None
    if getattr(params, "thinking_token_budget", None) is not None:
        return None
    constraints = params.structured_outputs
    if constraints is not None and not constraints.all_constraints_none():
        return None
    options = request_options(server, params)
    return options if options.enabled else None
