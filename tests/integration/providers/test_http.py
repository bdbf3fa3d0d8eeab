"""The HTTP client against a real loopback server that misbehaves in every way that providers do."""

from __future__ import annotations

import gzip
import json
import logging
import pickle
import traceback
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from cluster.errors import ConfigError, InputError, Malformed, ProviderDown, RateLimited
from cluster.providers.http import Answer, Http, Throttled, retry_at
from tests.services.serving import serving
from tests.services.wire import Reply, Wire, answer, wire

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
KEY = "s3cr3t/+key"


@asynccontextmanager
async def against(
    reply: Reply, *, timeout_s: float = 20.0, limit: int = 1_000
) -> AsyncIterator[tuple[Http, Wire]]:
    """A client whose server answers every request with `reply`."""
    async with wire(reply) as server:
        http = Http(
            "binance",
            server.url + "/api",
            timeout_s=timeout_s,
            max_body_bytes=limit,
            secrets=(KEY,),
            now=lambda: NOW,
        )
        yield http, server
        await http.close()


async def test_the_answer_has_status_lower_case_headers_and_the_whole_body() -> None:
    async with against(answer("200 OK", b'{"a": 1}', "X-MBX-USED-WEIGHT-1M: 37")) as (http, server):
        said = await http.get("/klines", {"symbol": "BTCUSDT", "limit": 2})
    assert (said.status, said.headers["x-mbx-used-weight-1m"], said.json(), said.received_at) == (
        200,
        "37",
        {"a": 1},
        NOW,
    )
    assert server.requests[0].startswith("GET /api/klines?symbol=BTCUSDT&limit=2 HTTP/1.1\r\n")


async def test_a_status_of_the_client_is_answered_for_the_client_to_understand() -> None:
    async with against(answer("400 Bad Request", b'{"code":-1121,"msg":"Invalid symbol."}')) as (http, _):
        said = await http.get("/klines")
    assert (said.status, said.json()["code"]) == (400, -1121)


async def test_a_packed_answer_is_unpacked() -> None:
    packed = gzip.compress(b'{"packed": true}')
    async with against(answer("200 OK", packed, "Content-Encoding: gzip")) as (http, server):
        assert (await http.get("/x")).json() == {"packed": True}
    assert "accept-encoding: gzip\r\n" in server.requests[0]


async def test_an_application_server_is_spoken_to_as_well() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"[]"})  # type: ignore[operator]

    with serving(app) as url:
        http = Http("yahoo", url)
        assert (await http.get("/v8")).json() == []
        await http.close()


async def test_a_server_that_hangs_is_down_after_the_time_out() -> None:
    async with against(Reply(b"", "hang"), timeout_s=0.2) as (http, _):
        with pytest.raises(ProviderDown, match="binance: GET /x answered nothing"):
            await http.get("/x")


async def test_a_server_that_hangs_in_the_middle_of_the_body_is_down() -> None:
    begun = Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1", "hang")
    async with against(begun, timeout_s=0.2) as (http, _):
        with pytest.raises(ProviderDown):
            await http.get("/x")


async def test_a_reset_in_the_middle_of_the_body_is_down() -> None:
    begun = Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1", "reset")
    async with against(begun) as (http, _):
        with pytest.raises(ProviderDown, match="ReadError"):
            await http.get("/x")


async def test_a_connection_closed_without_a_word_is_down() -> None:
    async with against(Reply(b"", "close")) as (http, _):
        with pytest.raises(ProviderDown):
            await http.get("/x")


async def test_nobody_listening_is_down() -> None:
    async with wire(Reply(b"")) as server:
        url = server.url
    http = Http("binance", url)
    with pytest.raises(ProviderDown, match="ConnectError"):
        await http.get("/x")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1",
    ],
)
async def test_a_body_that_ends_too_early_is_malformed(head: bytes) -> None:
    async with against(Reply(head)) as (http, _):
        with pytest.raises(Malformed, match="binance: the answer is truncated"):
            await http.get("/x")


async def test_a_packed_body_without_its_end_is_malformed() -> None:
    packed = gzip.compress(b'{"packed": true}')
    for cut in (packed[:-9], packed[:5]):
        async with against(answer("200 OK", cut, "Content-Encoding: gzip")) as (http, _):
            with pytest.raises(Malformed, match="truncated"):
                await http.get("/x")


async def test_a_packed_body_that_is_none_is_malformed() -> None:
    async with against(answer("200 OK", b"<html>", "Content-Encoding: gzip")) as (http, _):
        with pytest.raises(Malformed, match="no gzip"):
            await http.get("/x")


async def test_bytes_after_the_end_of_a_packed_body_are_malformed() -> None:
    packed, chunks = (
        gzip.compress(b"[]"),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    for part in (packed, b"more"):
        chunks += f"{len(part):x}\r\n".encode() + part + b"\r\n"
    async with against(Reply(chunks + b"0\r\n\r\n")) as (http, _):
        with pytest.raises(Malformed, match="goes on after its end"):
            await http.get("/x")


async def test_a_packing_that_was_not_asked_for_is_malformed() -> None:
    async with against(answer("200 OK", b"\x1b\x00", "Content-Encoding: br")) as (http, _):
        with pytest.raises(Malformed, match="packed in another way than gzip"):
            await http.get("/x")


async def test_a_body_one_byte_too_large_is_malformed_and_one_that_fits_is_not() -> None:
    async with against(answer("200 OK", b"x" * 1_000)) as (http, _):
        assert len((await http.get("/x")).body) == 1_000
    async with against(answer("200 OK", b"x" * 1_001)) as (http, _):
        with pytest.raises(Malformed, match="larger than 1000 bytes"):
            await http.get("/x")


async def test_a_gzip_bomb_is_refused_without_unpacking_it() -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=9)  # about 200 kB
    async with against(answer("200 OK", bomb, "Content-Encoding: gzip"), limit=1_000_000) as (http, _):
        tracemalloc.start()
        with pytest.raises(Malformed, match="larger than 1000000 bytes"):
            await http.get("/x")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10_000_000


async def test_html_where_json_was_expected_is_malformed_and_says_how_it_begins() -> None:
    page = b"\n<!DOCTYPE html>\n<title>Will be right   back</title>"
    async with against(answer("200 OK", page, "Content-Type: text/html")) as (http, _):
        said = await http.get("/x")
    with pytest.raises(Malformed) as caught:
        said.json()
    assert str(caught.value) == (
        "binance answered HTML where JSON was expected (HTTP 200): "
        "<!DOCTYPE html> <title>Will be right back</title>"
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 200_000, b"\xff\xfe\x00", b"1" * 10_000])
def test_whatever_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        Answer(200, {}, body, NOW).json()


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        (["Retry-After: 7"], 7),
        (["Retry-After: 0"], 0),
        # The server's clock is an hour behind ours: its date still means ten seconds.
        (["Date: Fri, 20 Nov 2026 11:00:00 GMT", "Retry-After: Fri, 20 Nov 2026 11:00:10 GMT"], 10),
        (["Retry-After: Fri, 20 Nov 2026 12:01:30 GMT"], 90),
        (["Retry-After: Fri, 20 Nov 2026 11:59:00 GMT"], 60),  # gone by: the default
        (["Retry-After: soon"], 60),
        (["Retry-After: -5"], 60),
        (["Retry-After: 999999999"], 259_200),  # three days, the longest ban there is
        ([f"X-Ratelimit-Reset: {int(NOW.timestamp()) + 25}"], 25),
        ([f"X-Ratelimit-Reset: {int(NOW.timestamp()) + 25}", "Retry-After: 7"], 7),
        ([], 60),
    ],
)
async def test_429_is_a_rate_limit_until_the_server_says(headers: list[str], wait_s: int) -> None:
    async with against(answer("429 Too Many Requests", b"Too Many Requests", *headers)) as (http, _):
        with pytest.raises(RateLimited, match="binance: GET /x answered 429: Too Many Requests") as caught:
            await http.get("/x")
    assert (caught.value.retry_at - NOW).total_seconds() == wait_s


async def test_418_is_a_ban_of_two_minutes_at_least_and_its_body_can_be_read() -> None:
    body = b'{"code":-1003,"msg":"Way too much request weight used; IP banned until 1785050129644."}'
    async with against(answer("418 I'm a teapot", body)) as (http, _):
        with pytest.raises(Throttled) as caught:
            await http.get("/x")
    assert (caught.value.retry_at - NOW).total_seconds() == 120
    assert caught.value.answer is not None
    assert caught.value.answer.json()["code"] == -1003


def test_a_rate_limit_travels_between_processes_without_its_answer() -> None:
    error = Throttled("wait", NOW)
    error.answer = Answer(429, {}, b"", NOW)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.retry_at) == (Throttled, "wait", NOW)


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"]
)
async def test_5xx_is_down(status: str) -> None:
    async with against(answer(status, b"<html>oops</html>")) as (http, _):
        with pytest.raises(ProviderDown, match=f"answered {status[:3]}: <html>oops</html>"):
            await http.get("/x")


async def test_a_redirect_to_another_host_is_not_followed() -> None:
    async with wire(answer("200 OK", b"[]")) as other:
        elsewhere = f"Location: {other.url}/consent?token={KEY}"
        async with against(answer("302 Found", b"", elsewhere)) as (http, _):
            with pytest.raises(ProviderDown, match=r"a redirect to 'http://127.0.0.1:\d+/consent'; none is"):
                await http.get("/x")
    assert other.requests == []


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with against(answer("200 OK", b"[]")) as (http, _):
        assert (await http.get("/x")).json() == []


ECHOES = [
    answer("200 OK", f"We have detected your API key as {KEY} and so on".encode()),
    answer("200 OK", b" " * 950 + KEY.encode() + b"!"),
    answer("429 Too Many Requests", f'{{"echo": "{KEY}"}}'.encode()),
    answer("500 Oops", f"GET /x?apikey=s3cr3t%2F%2Bkey {KEY}".encode()),
    answer("302 Found", b"", f"Location: http://127.0.0.1/{KEY}/x"),
    Reply(f"{KEY} is no HTTP\r\n\r\n".encode()),
    Reply(b"", "close"),
]


@pytest.mark.parametrize("reply", ECHOES)
async def test_the_key_is_in_no_error_and_in_no_log(reply: Reply, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with against(reply) as (http, server):
        with pytest.raises((ProviderDown, RateLimited, Malformed)) as caught:
            (await http.get("/x", {"apikey": KEY})).json()
    assert "apikey=s3cr3t%2F%2Bkey" in server.requests[0]
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "s3cr3t" not in told


def test_an_answer_shows_neither_body_nor_keys() -> None:
    assert "s3cr3t" not in repr(Answer(200, {}, KEY.encode(), NOW, "binance", (KEY,)))


def test_a_key_that_no_header_may_have_is_refused_without_being_told() -> None:
    with pytest.raises(ConfigError) as caught:
        Http("finnhub", "https://finnhub.io", headers={"X-Finnhub-Token": "s3cr3t\n"})
    assert "X-Finnhub-Token" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "finnhub.io", "ftp://finnhub.io", "https://", "https://u:p@finnhub.io", "https://finnhub.io?a=b"],
)
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="base URL of provider finnhub"):
        Http("finnhub", url)


async def test_a_path_that_no_url_can_have_is_the_callers_fault() -> None:
    with pytest.raises(InputError, match="yahoo cannot be asked for"):
        await Http("yahoo", "http://127.0.0.1:1").get("/chart/A\nB")


def test_without_a_time_of_the_server_ours_is_taken() -> None:
    assert Answer(200, {"date": "Fri, 20 Nov 2026 11:00:00 GMT"}, b"", NOW).served_at == NOW.replace(hour=11)
    assert Answer(200, {"date": "yesterday"}, b"", NOW).served_at == NOW


def test_the_default_wait_holds_for_a_status_that_is_none_of_both() -> None:
    assert (retry_at(Answer(200, {}, json.dumps({}).encode(), NOW)) - NOW).total_seconds() == 60
