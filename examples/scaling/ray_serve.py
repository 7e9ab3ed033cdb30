"""Replicas of one vLLM server with the plugin under Ray Serve: `MODEL=... serve run ray_serve:app`.

Needs `pip install "ray[serve]" httpx` beside vLLM. Each replica is a server of its own in a child process, and requests
are handed on byte by byte, so the field `multiverse` and streamed events come through. Ray's own OpenAI front end
(`ray.serve.llm`) was not tried.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request

import httpx
from ray import serve
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse

COMMAND = [
    "vllm",
    "serve",
    os.environ.get("MODEL", "MODEL"),
    "--plugin",
    "multiverse",
    "--multiverse-max-branches",
    "16",
]
KEPT = {"content-type", "x-request-id"}


@serve.deployment(num_replicas=2, ray_actor_options={"num_gpus": float(os.environ.get("GPUS", "1"))})
class Replica:
    """One server, and a client of it."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._server = subprocess.Popen([*COMMAND, "--host", "127.0.0.1", "--port", str(port)])
        self._client = httpx.AsyncClient(base_url=self._url, timeout=None)
        while True:
            self.check_health()
            try:
                with urllib.request.urlopen(f"{self._url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(1)

    def check_health(self) -> None:
        """Ray starts a replica anew whose server has ended."""
        if self._server.poll() is not None:
            raise RuntimeError(f"the server ended with status {self._server.returncode}")

    async def __call__(self, request: Request) -> StreamingResponse:
        headers = {name: value for name, value in request.headers.items() if name in KEPT | {"authorization"}}
        sent = self._client.build_request(
            request.method,
            str(request.url.path),
            params=request.query_params,
            headers=headers,
            content=await request.body(),
        )
        answer = await self._client.send(sent, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name in KEPT}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose))

    def __del__(self) -> None:
        self._server.terminate()


app = Replica.bind()
