"""The front end of an engine: what its scheduler sends of a request, put where whoever asked finds it.

For the OpenAI server that is a `ResponseExtras` that it attaches to its request; for everybody else
`meta_info["multiverse"]`: the record of a finished request, and under `events` what happened since the last output, if
the client wants events.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from sglang.srt.managers.io_struct import GenerateReqInput

from multiverse.wire.responses import FIELD, ResponseExtras, merge
from multiverse_sglang.channels import EXTRA, FAILED, LISTENER, PENDING
from multiverse_sglang.frontend.parameters import check_parameters
from multiverse_sglang.frontend.program_calls import Programs
from multiverse_sglang.host import GenerateRequest, TokenizerManager
from multiverse_sglang.registry import Original

Output = dict[str, Any] | list[dict[str, Any]]
"""What SGLang yields of a request, or of several at once."""
_log = logging.getLogger("sglang.multiverse")


def update_request_meta_info(
    original: Original,
    manager: TokenizerManager,
    meta_info: dict[str, Any],
    state: object,
    customized_info: dict[str, Any],
    index: int,
    finish_reason: object,
) -> None:
    """Keep what the scheduler sends until an output goes out: some of SGLang's outputs are overtaken by the next."""
    received: Iterable[dict[str, Any]] = ()
    if FIELD in customized_info:
        received = customized_info[FIELD][index]
        customized_info = {name: values for name, values in customized_info.items() if name != FIELD}
    original(manager, meta_info, state, customized_info, index, finish_reason)
    try:
        _keep(meta_info, state, received)
    except Exception as error:
        _log.error("multiverse: request %s ended with an error: %r", meta_info.get("id"), error, exc_info=error)
        meta_info[FIELD] = {FAILED: repr(error)}


def _keep(meta_info: dict[str, Any], state: object, received: Iterable[dict[str, Any]]) -> None:
    for extra in received:
        pending = state.__dict__.setdefault(PENDING, {})
        pending[EXTRA] = merge(pending.get(EXTRA), extra)
    if PENDING in state.__dict__:
        meta_info[FIELD] = state.__dict__[PENDING]


def generate_request(
    original: Original, manager: TokenizerManager, obj: GenerateRequest, request: object = None
) -> AsyncGenerator[Output, None]:
    """The tokenizer manager's outputs, each with what came with it. A state of a program may be who asks.

    Raises:
        OptionError: if the scheduler could not read what the request asks. SGLang answers with HTTP 400.
    """
    if isinstance(obj, GenerateReqInput):
        check_parameters(obj.sampling_params)
        Programs.of(manager).translate(obj)
    return _tap(original(manager, obj, request), manager, obj)


async def _tap(
    outputs: AsyncGenerator[Output, None], manager: TokenizerManager, obj: GenerateRequest
) -> AsyncGenerator[Output, None]:
    listener: ResponseExtras | None = obj.__dict__.get(LISTENER)
    extras = listener or ResponseExtras(manager.tokenizer, _skips_special_tokens(obj))
    async with aclosing(outputs):
        async for output in outputs:
            several = output if isinstance(output, list) else [output]
            for place, one in enumerate(several):
                meta_info = one.get("meta_info") or {}
                pending = meta_info.pop(FIELD, None) or {}
                index = one.get("index", place)
                extra = pending.pop(EXTRA, {})
                if failure := pending.get(FAILED) or extra.get(FAILED):
                    manager.abort_request(meta_info["id"])
                    raise RuntimeError(f"multiverse: {failure}")
                if not extra:
                    continue
                extras.receive(index, extra)
                if listener is None:
                    events = extras.take_events().get(index)
                    meta_info[FIELD] = extras.records.get(index, {}) | ({"events": events} if events else {})
            yield output


def _skips_special_tokens(obj: GenerateRequest) -> bool:
    parameters = obj.sampling_params
    first = parameters[0] if isinstance(parameters, list) and parameters else parameters
    return bool((first or {}).get("skip_special_tokens", True)) if isinstance(first, dict) else True
