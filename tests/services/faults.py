"""What goes wrong between us and a service, as ASGI applications that answer in its place."""

from __future__ import annotations

import asyncio
import gzip

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LONGEST_HANG_S = 60.0


def says(status: int, document: object, **headers: str) -> ASGIApp:
    """JSON with a status; `retry_after="7"` is the header `Retry-After: 7`."""
    return JSONResponse(document, status, {name.replace("_", "-"): text for name, text in headers.items()})


def html(status: int = 200) -> ASGIApp:
    """A page of a proxy or a maintenance notice, where JSON was expected."""
    return HTMLResponse("<html><head><title>Maintenance</title></head><body>Back soon</body></html>", status)


def gzip_bomb(size: int) -> ASGIApp:
    """Few bytes that unpack to `size`."""
    return Response(gzip.compress(b" " * size), headers={"content-encoding": "gzip"})


async def hang(_scope: Scope, receive: Receive, _send: Send) -> None:
    """No answer as long as the client waits."""
    async with asyncio.timeout(LONGEST_HANG_S):
        while (await receive())["type"] != "http.disconnect":
            pass


async def cut(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The connection closes in the middle of the body."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'[[1634943780000,"606', "more_body": True})
