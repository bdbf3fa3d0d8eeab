"""A loopback server that sends exactly the bytes it is told to, and then hangs, closes or resets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

End = Literal["close", "reset", "hang"]


@dataclass(frozen=True)
class Reply:
    """What is sent after a request, and what happens then."""

    data: bytes
    end: End = "close"


@dataclass
class Wire:
    """The running server."""

    url: str
    requests: list[str] = field(default_factory=list)
    """Head of every request, as it came."""


def answer(status: str, body: bytes = b"", *headers: str) -> Reply:
    """A whole HTTP answer, such as `answer("200 OK", b"{}", "Content-Type: application/json")`."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return Reply("\r\n".join([*lines, "", ""]).encode() + body)


@asynccontextmanager
async def wire(reply: Reply) -> AsyncIterator[Wire]:
    """Answers every request with `reply`."""
    said = Wire("")
    over = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(reply.data)
        await writer.drain()
        if reply.end == "hang":
            await over.wait()
        if reply.end == "reset":
            await asyncio.sleep(0.05)  # the bytes should arrive before the reset
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    said.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield said
    finally:
        over.set()
        server.close()
        await server.wait_closed()
