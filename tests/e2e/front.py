"""The simplest fair front: each server in turn, and the next one where nobody listens. Bytes go through as they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

from aiohttp import ClientConnectorError, ClientError, ClientSession, TCPConnector, web

from multiverse.harness.server import free_port

REPLICA = "X-replica"
"""The header of a response that says which server gave it."""


class Front:
    """Hands requests on to `servers`, by their base URLs."""

    def __init__(self, servers: Sequence[str], client: ClientSession) -> None:
        self._servers, self._client, self._turn = servers, client, count()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Ask one server. What it had begun to compute is not asked for again: an answer that is cut stays cut."""
        body, first, response = await request.read(), next(self._turn), None
        headers = {"Content-Type": request.content_type}
        for number in (k % len(self._servers) for k in range(first, first + len(self._servers))):
            url = self._servers[number] + request.path_qs
            try:
                async with self._client.request(request.method, url, data=body, headers=headers) as answer:
                    response = web.StreamResponse(status=answer.status, headers={REPLICA: str(number)})
                    response.content_type = answer.content_type
                    await response.prepare(request)
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                    await response.write_eof()
                    return response
            except ClientConnectorError:
                continue
            except ClientError:
                if response is None:
                    return web.Response(status=502)
                if request.transport is not None:
                    request.transport.abort()
                return response
        return web.Response(status=503)


@contextmanager
def fronted(servers: Sequence[str]) -> Iterator[str]:
    """A front before `servers` while the block runs; its base URL."""
    port, ready, done, loop = free_port(), threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with ClientSession(
            connector=TCPConnector(force_close=True)
        ) as client:  # else one may close as it is used
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", Front(servers, client).handle)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            ready.set()
            await done.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()
