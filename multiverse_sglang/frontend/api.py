"""SGLang's HTTP server: `usage.multiverse`, events and trees in the choices of its responses.

The field of its requests is for `field.py`. Only imported in processes that serve HTTP.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import Any

from fastapi.responses import ORJSONResponse
from sglang.srt.plugins.hook_registry import HookType

from multiverse.serving.hooks import missing
from multiverse.wire.responses import FIELD, Lines, ResponseExtras
from multiverse_sglang.channels import LISTENER
from multiverse_sglang.frontend.field import FieldMiddleware
from multiverse_sglang.frontend.hooks import API_HOOKS, CHAT, COMPLETION
from multiverse_sglang.registry import Original, Wrappers, apply, require

Stream = AsyncGenerator[str, None]


def _listen(handler: Any, adapted: Any, request: Any) -> ResponseExtras:
    extras = ResponseExtras(handler.tokenizer_manager.tokenizer, request.skip_special_tokens)
    setattr(adapted, LISTENER, extras)
    return extras


def stream_chat(original: Original, handler: Any, adapted: Any, request: Any, raw: Any) -> Stream:
    """SGLang's lines of a chat completion (`data: ...`), with events, trees and figures as lines or fields of ours."""
    lines = Lines(_listen(handler, adapted, request), "chat.completion.chunk")
    return lines.around(original(handler, adapted, request, raw))


def stream_completion(original: Original, handler: Any, adapted: Any, request: Any, raw: Any) -> Stream:
    """The same of a text completion."""
    lines = Lines(_listen(handler, adapted, request), "text_completion")
    return lines.around(original(handler, adapted, request, raw))


async def answer(original: Original, handler: Any, adapted: Any, request: Any, raw: Any) -> Any:
    """A whole response, with figures and trees if there are any."""
    extras = _listen(handler, adapted, request)
    response = await original(handler, adapted, request, raw)
    if (figures := extras.usage()) is None or not hasattr(response, "usage") or _is_for_sglang(raw):
        return response
    content = response.model_dump(mode="json")
    content["usage"][FIELD] = figures
    trees = extras.trees()
    for choice in content["choices"]:
        if choice["index"] in trees:
            choice[FIELD] = trees[choice["index"]]
    return ORJSONResponse(content)


def _is_for_sglang(raw: Any) -> bool:
    """Whether SGLang makes something else of the response, which has no place for figures: it must stay what it is."""
    path: str | None = getattr(getattr(raw, "url", None), "path", None)
    return path == "/v1/messages"


WRAPPERS: Wrappers = {
    f"{CHAT}._generate_chat_stream": (HookType.AROUND, stream_chat),
    f"{CHAT}._handle_non_streaming_request": (HookType.AROUND, answer),
    f"{COMPLETION}._generate_completion_stream": (HookType.AROUND, stream_completion),
    f"{COMPLETION}._handle_non_streaming_request": (HookType.AROUND, answer),
}
"""By target of the table: how SGLang's registry has to apply what."""


@functools.cache
def install_api() -> None:
    """Let SGLang's server, which this process is about to be, take the field, and fork and join programs. Idempotent.

    Raises:
        UnsupportedHostError: see `multiverse_sglang.install.install`.
    """
    require(missing(API_HOOKS))
    apply(API_HOOKS, WRAPPERS)
    from sglang.srt.entrypoints.http_server import app

    from multiverse_sglang.frontend.program_routes import router

    if all(middleware.cls is not FieldMiddleware for middleware in app.user_middleware):
        app.add_middleware(FieldMiddleware)
        app.include_router(router)
