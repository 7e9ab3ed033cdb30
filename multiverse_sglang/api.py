"""SGLang's HTTP server: the `multiverse` field of requests, `usage.multiverse`, events and trees in the choices.

A request's field travels to the engine in `custom_params` of its sampling parameters. Only imported in processes that
serve HTTP.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import ORJSONResponse
from sglang.srt.plugins.hook_registry import HookType

from multiverse.errors import MultiverseError, OptionError
from multiverse.options import Options
from multiverse.responses import FIELD, STRUCTURED_OUTPUTS, Lines, Told
from multiverse_sglang.front import LISTENER
from multiverse_sglang.hooks import CHAT, COMPLETION
from multiverse_sglang.sampling import check_branch_sampling

PATHS = ("/v1/chat/completions", "/v1/completions", "/generate")
"""Where requests may have the field."""
_CONSTRAINTS = ("regex", "ebnf", "json_schema", "structural_tag")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class FieldMiddleware:
    """Takes the field out of request bodies and hands it to the engine; a wrong one is answered with a 400.

    Bodies without the field are passed on byte for byte.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in PATHS:
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if f'"{FIELD}"'.encode() in body:
            try:
                body = move_field(body, native=scope["path"] == "/generate")
            except MultiverseError as error:
                await _refusal(str(error))(scope, receive, send)
                return
            scope = {**scope, "headers": _with_length(scope["headers"], len(body))}
        await self._app(scope, _again(body, receive), send)


def move_field(body: bytes, native: bool) -> bytes:
    """A request body whose field is where the engine finds it; `native` ones have `sampling_params`.

    Raises:
        OptionError: naming what is wrong and what is allowed.
    """
    try:
        request = json.loads(body)
    except ValueError:
        return body  # SGLang says better what is wrong with it
    if not isinstance(request, dict) or FIELD not in request:
        return body
    given = request.pop(FIELD)
    options = Options.from_environment().for_request(given)
    if native and request.get("sampling_params") is None:
        request["sampling_params"] = {}
    holders = request["sampling_params"] if native else request
    for holder in holders if isinstance(holders, list) else [holders]:
        if given is not None and options.enabled and _is_constrained(holder):
            raise OptionError(STRUCTURED_OUTPUTS)
        holder["custom_params"] = {**(holder.get("custom_params") or {}), FIELD: json.dumps(given)}
    check_branch_sampling(options)
    return json.dumps(request).encode()


def _is_constrained(holder: dict[str, Any]) -> bool:
    kind = (holder.get("response_format") or {}).get("type", "text")
    return kind != "text" or any(holder.get(name) for name in _CONSTRAINTS)


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """What was read, to be read again; afterwards whatever comes, such as a disconnect."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> MutableMapping[str, Any]:
        return messages.pop() if messages else await receive()

    return next_message


def _with_length(headers: Any, length: int) -> list[tuple[bytes, bytes]]:
    return [*((k, v) for k, v in headers if k != b"content-length"), (b"content-length", str(length).encode())]


def _refusal(message: str) -> ORJSONResponse:
    error = {"object": "error", "message": message, "type": "BadRequest", "param": FIELD, "code": 400}
    return ORJSONResponse(error, 400)


# --- responses -------------------------------------------------------------------------------------------------------


def _listen(handler: Any, adapted: Any, request: Any) -> Told:
    told = Told(handler.tokenizer_manager.tokenizer, request.skip_special_tokens)
    setattr(adapted, LISTENER, told)
    return told


def stream_chat(original: Any, handler: Any, adapted: Any, request: Any, raw: Any) -> AsyncGenerator[str, None]:
    lines = Lines(_listen(handler, adapted, request), "chat.completion.chunk")
    return lines.around(original(handler, adapted, request, raw))


def stream_completion(original: Any, handler: Any, adapted: Any, request: Any, raw: Any) -> AsyncGenerator[str, None]:
    lines = Lines(_listen(handler, adapted, request), "text_completion")
    return lines.around(original(handler, adapted, request, raw))


async def answer(original: Any, handler: Any, adapted: Any, request: Any, raw: Any) -> Any:
    """A whole response, with figures and trees if there are any."""
    told = _listen(handler, adapted, request)
    response = await original(handler, adapted, request, raw)
    if (figures := told.usage()) is None or not hasattr(response, "usage"):
        return response
    content = response.model_dump(mode="json")
    content["usage"][FIELD] = figures
    trees = told.trees()
    for choice in content["choices"]:
        if choice["index"] in trees:
            choice[FIELD] = trees[choice["index"]]
    return ORJSONResponse(content)


WRAPPERS = {
    f"{CHAT}._generate_chat_stream": (HookType.AROUND, stream_chat),
    f"{CHAT}._handle_non_streaming_request": (HookType.AROUND, answer),
    f"{COMPLETION}._generate_completion_stream": (HookType.AROUND, stream_completion),
    f"{COMPLETION}._handle_non_streaming_request": (HookType.AROUND, answer),
}
"""By target of the table: how SGLang's registry has to apply what."""


def install() -> None:
    """Let SGLang's server take the field, and fork and join programs. Idempotent."""
    from sglang.srt.entrypoints.http_server import app

    from multiverse_sglang.routes import router

    if all(middleware.cls is not FieldMiddleware for middleware in app.user_middleware):
        app.add_middleware(FieldMiddleware)
        app.include_router(router)
