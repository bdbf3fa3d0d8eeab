"""The proxy of the fault tests, in front of a server that answers what it gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.chaos.proxy import Proxy, proxied

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """A proxy, and what has reached the server behind it."""
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):  # reset, or the test has ended
            while data := await reader.read(100):
                got.append(data)
                writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with proxied("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy, got
    server.close()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Streams]:
    streams = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield streams
    streams[1].close()
    with suppress(ConnectionError):
        await streams[1].wait_closed()


async def ask(streams: Streams, data: bytes, timeout_s: float = 10.0) -> bytes:
    streams[1].write(data)
    return await asyncio.wait_for(streams[0].read(100), timeout_s)


async def test_it_passes_on_both_ways_what_it_is_not_told_to_spoil() -> None:
    async with echo() as (proxy, got), connected(proxy) as streams:
        assert [await ask(streams, b"one"), await ask(streams, b"two")] == [b"ONE", b"TWO"]
    assert got == [b"one", b"two"]


async def test_it_resets_before_certain_bytes_get_through_once() -> None:
    async with echo() as (proxy, got):
        proxy.resets = [(b"COMMIT", False)]
        async with connected(proxy) as streams:
            assert await ask(streams, b"begin") == b"BEGIN"
            with pytest.raises(ConnectionResetError):
                await ask(streams, b"COMMIT;")
        async with connected(proxy) as streams:
            assert await ask(streams, b"COMMIT again") == b"COMMIT AGAIN"
    assert got == [b"begin", b"COMMIT again"]


async def test_it_lets_certain_bytes_through_and_resets_instead_of_their_answer() -> None:
    async with echo() as (proxy, got):
        proxy.resets = [(b"COMMIT", True)]
        async with connected(proxy) as streams:
            with pytest.raises(ConnectionResetError):
                await ask(streams, b"COMMIT;")
    assert got == [b"COMMIT;"]


async def test_it_swallows_and_leaves_those_connections_half_open_for_ever() -> None:
    async with echo() as (proxy, got):
        async with connected(proxy) as streams:
            proxy.swallows = True
            with pytest.raises(TimeoutError):
                await ask(streams, b"lost", timeout_s=0.1)
            proxy.swallows = False
            with pytest.raises(TimeoutError):
                await ask(streams, b"lost, too", timeout_s=0.1)
        async with connected(proxy) as streams:
            assert await ask(streams, b"new") == b"NEW"
    assert got == [b"new"]


async def test_it_delays_and_cuts() -> None:
    async with echo() as (proxy, _):
        proxy.delay_s = 0.1
        async with connected(proxy) as streams:
            began_s = time.monotonic()
            assert await ask(streams, b"late") == b"LATE"
            assert time.monotonic() - began_s >= 0.2
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                await ask(streams, b"more")


async def test_a_server_that_is_away_resets_the_client() -> None:
    async with proxied("127.0.0.1", 1) as proxy, connected(proxy) as streams:
        with pytest.raises(ConnectionResetError):
            await ask(streams, b"anybody?")
