"""HTTP routes for programs, in SGLang's own server.

    POST /fork_request                 {"src_rid", "dst_rids", "text", "position_ids_offset"}
    POST /concate_and_append_request   {"src_rids", "dst_rid"}     the one that SGLang's front end calls
    POST /end_request                  {"rids"}

A state makes requests by `/generate` with its name as `rid`. Wrong calls are answered with HTTP 400 and change nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sglang.srt.entrypoints import http_server

from multiverse_sglang.frontend.program_calls import Programs

_LONGEST = 1000
"""Characters of an error: a body can be wrong in any number of places, each of which is told."""


class _Call(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Fork(_Call):
    """Body of `/fork_request`."""

    src_rid: str
    dst_rids: list[str]
    text: str
    position_ids_offset: list[int] | None = None


class Join(_Call):
    """Body of `/concate_and_append_request`."""

    src_rids: list[str]
    dst_rid: str


class End(_Call):
    """Body of `/end_request`."""

    rids: list[str]


router = APIRouter()


def _route(path: str, body: type[_Call], act: Callable[[Programs, Any], Awaitable[None]]) -> None:
    async def handle(request: Request) -> Response:
        programs = Programs.of(http_server.get_global_state().tokenizer_manager)
        try:
            await act(programs, body.model_validate_json(await request.body()))
        except ValueError as error:
            return JSONResponse({"error": {"message": str(error)[:_LONGEST]}}, HTTPStatus.BAD_REQUEST)
        return JSONResponse({"success": True})

    router.add_api_route(path, handle, methods=["POST"], name=body.__name__)


_route("/fork_request", Fork, lambda p, call: p.fork(call.src_rid, call.dst_rids, call.text, call.position_ids_offset))
_route("/concate_and_append_request", Join, lambda programs, call: programs.join(call.src_rids, call.dst_rid))
_route("/end_request", End, lambda programs, call: programs.end(call.rids))
