"""The field `multiverse` of HTTP requests on its way to the scheduler, in `custom_params` of sampling parameters.

All of it is checked here: in the scheduler a wrong value could end everybody's requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

from multiverse.errors import MultiverseError, OptionError
from multiverse.serving.field import field_of, has_field
from multiverse.serving.options import Options
from multiverse.wire.responses import ELSEWHERE, FIELD
from multiverse_sglang.frontend.parameters import check_openai, check_parameters, custom, holders

NATIVE = "/generate"
"""Where sampling parameters have an object of their own, or a list of them, one per prompt."""
PATHS = ("/v1/chat/completions", "/v1/completions", "/invocations", NATIVE)
"""Where requests may have the field."""
OTHERS = ("/v1/messages", "/v1/responses", "/vertex_generate", "/api/chat", "/api/generate")
"""Where answers have no place for what the field asks."""
_WRONG = rb'"response_format"\s*:\s*["\[0-9tf-]|"n"\s*:\s*[0-]'
LOOKS = re.compile(rb'"(multiverse|custom_params)"|\\u00[4-7]|' + _WRONG, re.IGNORECASE)
"""A body that may have a key of interest, as it is or with letters written as escapes; or what SGLang breaks on."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class FieldMiddleware:
    """Takes the field out of request bodies and hands it to the engine; a wrong one is answered with a 400.

    Bodies without the field are passed on byte for byte, but for what SGLang itself breaks on.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT") or scope["path"] not in PATHS + OTHERS:
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if LOOKS.search(body):
            try:
                body = move_field(body, scope["path"])
            except MultiverseError as error:
                await _refusal(error, scope["path"])(scope, receive, send)
                return
            scope = {**scope, "headers": _with_length(scope["headers"], len(body))}
        await self._app(scope, _again(body, receive), send)


def move_field(body: bytes, path: str) -> bytes:
    """A request body whose field is where the engine finds it.

    Raises:
        OptionError: naming what is wrong and what is allowed.
    """
    try:
        request = json.loads(body)
        if not isinstance(request, dict):
            return body
        given, asked = field_of(request), has_field(request)
        request.pop(FIELD, None)
        if asked and path in OTHERS:
            raise OptionError(ELSEWHERE)
        if given is not None:
            _hand_over(request, given, path)
        if path == NATIVE:
            check_parameters(request.get("sampling_params"))
        elif path in PATHS:
            check_parameters(request)
            check_openai(request)
        return json.dumps(request).encode() if asked else body
    except RecursionError:
        raise OptionError("the request nests objects and lists too deeply to be read") from None
    except json.JSONDecodeError:
        return body  # SGLang says better what is wrong with it


def _hand_over(request: dict[str, Any], given: Any, path: str) -> None:
    """Write the field where the engine finds it, as text, which no way to it changes."""
    Options.from_environment().for_request(given)  # before it is written: it may be nested without end
    if path == NATIVE and request.get("sampling_params") is None:
        request["sampling_params"] = {}
    text = given if isinstance(given, str) else json.dumps(given)
    for holder in holders(request["sampling_params"] if path == NATIVE else request):
        if FIELD in custom(holder):
            raise OptionError("multiverse is given twice, beside custom_params and in them: give it once")
        holder["custom_params"] = {**custom(holder), FIELD: text}


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

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


def _with_length(headers: Any, length: int) -> list[tuple[bytes, bytes]]:
    return [*((k, v) for k, v in headers if k != b"content-length"), (b"content-length", str(length).encode())]


def _refusal(error: MultiverseError, path: str) -> JSONResponse:
    if path in PATHS:
        wrong = error.parameter if isinstance(error, OptionError) else FIELD
        told = {"object": "error", "message": str(error), "type": "BadRequest", "param": wrong, "code": 400}
    else:
        told = {"type": "error", "error": {"type": "invalid_request_error", "message": str(error)}}
    return JSONResponse(told, 400)
