"""A TCP proxy that spoils connections as it is told while it runs. It knows no protocol."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK = 65_536


class Proxy:
    """Forwards what comes to `port` on loopback; the attributes may be changed at any time."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._links: set[_Link] = set()
        self._served: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.port = 0
        self.delay_s = 0.0
        """Each chunk waits so long, in both directions."""
        self.swallows = False
        """Connections take everything and pass nothing on, also later: they are half open for ever."""
        self.resets: list[tuple[bytes, bool]] = []
        """Bytes of a client at which to reset, each once; true: they get through, their answer does not."""

    def cut(self) -> None:
        """Reset every connection."""
        for link in list(self._links):
            link.reset()

    async def close(self) -> None:
        """Cut every connection and wait until they have ended."""
        self._is_closed = True
        self.cut()
        if self._served:
            await asyncio.wait(self._served)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client has connected."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        if self._is_closed:
            _reset(writer)
            _reset(there[1])
            return
        link = _Link(self, (reader, writer), there)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


class _Link:
    """A client's connection and ours to the target."""

    def __init__(
        self,
        proxy: Proxy,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy, self._here, self._there = proxy, here, there
        self._is_dead = False
        self._is_deaf = False

    async def run(self) -> None:
        """Until one side closes."""
        ways = [
            asyncio.create_task(self._pass(self._here[0], self._there[1], is_request=True)),
            asyncio.create_task(self._pass(self._there[0], self._here[1], is_request=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for writer in (self._here[1], self._there[1]):
                writer.close()

    def reset(self) -> None:
        """RST to both sides."""
        _reset(self._here[1])
        _reset(self._there[1])

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK):
                await asyncio.sleep(self._proxy.delay_s)
                self._is_dead |= self._proxy.swallows
                if self._is_dead:
                    continue
                if is_request and self._strikes(chunk):
                    if not self._is_deaf:
                        self.reset()
                        return
                elif not is_request and self._is_deaf:
                    self.reset()  # the target has done it, and its answer is lost
                    return
                writer.write(chunk)
                await writer.drain()

    def _strikes(self, chunk: bytes) -> bool:
        for pattern, gets_through in self._proxy.resets:
            if pattern in chunk:
                self._proxy.resets.remove((pattern, gets_through))
                self._is_deaf = gets_through
                return True
        return False


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of a server, as long as the context lasts."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
