"""HTTP to a provider: one GET at a time, bounded in time and size, its troubles told in our own errors."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, quote_plus

import httpx

from cluster.clock import SystemClock
from cluster.errors import ConfigError, InputError, Malformed, ProviderDown, RateLimited, Restricted
from cluster.redaction import redact

CONNECT_TIMEOUT_S = 5.0
DEFAULT_WAIT_S = {429: 60.0, 418: 120.0}
"""How long to stay away when the answer does not say it; 418 is Binance's ban, two minutes at least."""
LONGEST_WAIT_S = 3 * 86_400.0
"""No provider bans for longer; a larger number is nonsense."""
_HEADERS = {"accept": "*/*", "accept-encoding": "gzip", "user-agent": "finsight"}
_EXCERPT = 120
_RECOGNISABLE = 6
"""Characters of a secret that do not stand in a text by chance."""

# At DEBUG it would write down the headers of answers, and a server may echo a key in them.
logging.getLogger("httpcore").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said; `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    received_at: datetime
    provider: str = "provider"
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """The body as UTF-8; bytes that are none become �."""
        return self.body.decode(errors="replace")

    @property
    def served_at(self) -> datetime:
        """The server's own time (header `Date`, whole seconds), else `received_at`."""
        return _http_date(self.headers.get("date", "")) or self.received_at

    def excerpt(self) -> str:
        """The beginning of the body on one line, without keys: fit for errors and logs."""
        line = redact(" ".join(_blank(self.text, self.secrets)[: 8 * _EXCERPT].split()))
        return line if len(line) <= _EXCERPT else line[: _EXCERPT - 1] + "…"

    def json(self) -> Any:
        """The body's JSON document; raises `Malformed` for anything else."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            kind = "HTML" if self.body.lstrip()[:1] == b"<" else "text"
            raise Malformed(
                f"{self.provider} answered {kind} where JSON was expected (HTTP {self.status}): "
                f"{self.excerpt()}"
            ) from None


class Throttled(RateLimited):
    """429 or 418 by HTTP; a client that knows better what the body means finds it in `answer`."""

    answer: Answer | None = None
    """Stays behind when the error travels between processes."""


class Http:
    """GET requests to one server.

    Speaks through the bare transport: no proxy or netrc of the environment, no cookies, no redirects, and no
    log line with the URL (and so the key) in it. It retries nothing: the gateway and the queue do that.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 20.0,
        max_body_bytes: int = 20_000_000,
        secrets: tuple[str, ...] = (),
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._provider = provider
        self._base_url = _checked_url(provider, base_url)
        self._headers = {**_HEADERS, **_checked_headers(provider, headers or {})}
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._secrets = tuple(secret for secret in secrets if secret)
        self._now = now or SystemClock().now
        self._transport = httpx.AsyncHTTPTransport(trust_env=False)

    async def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Answer:
        """The answer to GET `base_url` + `path`, complete and unpacked, of any status except those below.

        Raises `ProviderDown` for a time-out (of the whole exchange), a connection that cannot be made or is
        reset, 5xx and redirects; `Throttled`, a `RateLimited`, for 429 and 418, until `Retry-After`,
        `X-RateLimit-Reset` or else a default; `Restricted` for 451; `Malformed` for a body that is too large,
        truncated or not packed as its header says; `InputError` for a path that no URL can have.
        """
        url = self._url(path, params or {})
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._exchange(url)
        except TimeoutError:
            raise ProviderDown(f"{self._said(path)} nothing complete within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            reason = hide(f"{type(error).__name__} {error}".strip(), self._secrets)
            raise ProviderDown(f"{self._said(path)} nothing: {reason}") from None
        return self._judged(path, answer)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _url(self, path: str, params: Mapping[str, str | int]) -> httpx.URL:
        try:
            return httpx.URL(self._base_url + path, params=dict(params))
        except httpx.InvalidURL as error:
            raise InputError(
                f"{self._provider} cannot be asked for {hide(path, self._secrets)!r}: {error}"
            ) from None

    async def _exchange(self, url: httpx.URL) -> Answer:
        timeout = httpx.Timeout(self._timeout_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s))
        request = httpx.Request("GET", url, headers=self._headers, extensions={"timeout": timeout.as_dict()})
        response = await self._transport.handle_async_request(request)
        try:
            body = await self._body(response)
        finally:
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body, self._now(), self._provider, self._secrets)

    async def _body(self, response: httpx.Response) -> bytes:
        unpack = _Unpacker(self._provider, response.headers.get("content-encoding", ""), self._max_body_bytes)
        try:
            async for chunk in response.aiter_raw():
                unpack.feed(chunk)
        except httpx.RemoteProtocolError:
            raise Malformed(f"{self._provider}: the answer is truncated") from None
        return unpack.finish()

    def _judged(self, path: str, answer: Answer) -> Answer:
        if answer.status in DEFAULT_WAIT_S:
            error = Throttled(f"{self._said(path)} {answer.status}: {answer.excerpt()}", retry_at(answer))
            error.answer = answer
            raise error
        if answer.status == 451:
            raise Restricted(f"{self._said(path)} 451: {answer.excerpt()} (it does not serve this location)")
        if answer.status >= 500:
            raise ProviderDown(f"{self._said(path)} {answer.status}: {answer.excerpt()}")
        if 300 <= answer.status < 400:
            target = hide(answer.headers.get("location", "").partition("?")[0], self._secrets)
            raise ProviderDown(
                f"{self._said(path)} {answer.status}, a redirect to {target!r}; none is followed"
            )
        return answer

    def _said(self, path: str) -> str:
        return f"{self._provider}: GET {hide(path, self._secrets)} answered"


def retry_at(answer: Answer) -> datetime:
    """When a throttled `answer` lets us come back, by our own clock.

    The server's dates are taken relative to its header `Date`, so that a wrong clock does no harm.
    """
    wait_s = _told_wait_s(answer)
    if wait_s is None or wait_s < 0:
        wait_s = DEFAULT_WAIT_S.get(answer.status, DEFAULT_WAIT_S[429])
    return answer.received_at + timedelta(seconds=min(wait_s, LONGEST_WAIT_S))


def hide(text: str, secrets: tuple[str, ...]) -> str:
    """`text` with `secrets`, as they are and as in a URL, and all that looks like a key replaced by stars.

    So are beginnings of them, where a quotation was cut.
    """
    text = _blank(text, secrets)
    for secret in secrets:
        for length in range(len(secret) - 1, _RECOGNISABLE - 1, -1):
            text = text.replace(secret[:length], "***")
    return redact(text)


def _blank(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
            text = text.replace(form, "***")
    return text


def _told_wait_s(answer: Answer) -> float | None:
    after = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", after):
        return float(after)
    if at := _http_date(after):
        return (at - answer.served_at).total_seconds()
    reset = answer.headers.get("x-ratelimit-reset", "").strip()
    if re.fullmatch(r"\d{10}", reset):  # seconds since 1970
        return (datetime.fromtimestamp(int(reset), UTC) - answer.served_at).total_seconds()
    return None


def _http_date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, IndexError, OverflowError):
        return None


def _checked_headers(provider: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not (
            value.isascii() and value.isprintable()
        ):  # the value is a key, as likely as not: it is not told
            raise ConfigError(f"header {name} for provider {provider} has characters that no header may have")
    return headers


def _checked_url(provider: str, base_url: str) -> str:
    url = httpx.URL(base_url)
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise ConfigError(
            f"the base URL of provider {provider} must look like https://host/path, without user and query, "
            f"not {redact(base_url)!r}"
        )
    return base_url.rstrip("/")


class _Unpacker:
    """Collects a body, unpacks it if it is gzip, and never holds more than `limit` bytes of it."""

    def __init__(self, provider: str, encoding: str, limit: int) -> None:
        if encoding.strip().lower() not in ("", "identity", "gzip", "x-gzip"):
            raise Malformed(f"{provider}: the answer is packed in another way than gzip, which was asked for")
        self._provider, self._limit = provider, limit
        self._gzip = zlib.decompressobj(wbits=31) if encoding.strip().lower().endswith("gzip") else None
        self._body, self._begun = bytearray(), False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes off the wire; raises `Malformed` as soon as it is too much."""
        self._begun = True
        if self._gzip and self._gzip.eof:
            raise Malformed(f"{self._provider}: the answer goes on after its end")
        room = self._limit - len(self._body)
        try:  # one byte more than there is room for is enough to know
            self._body += self._gzip.decompress(chunk, room + 1) if self._gzip else chunk[: room + 1]
        except zlib.error as error:
            raise Malformed(f"{self._provider}: the answer is no gzip: {error}") from None
        if len(self._body) > self._limit:
            raise Malformed(f"{self._provider}: the answer is larger than {self._limit} bytes")

    def finish(self) -> bytes:
        """The whole body; raises `Malformed` when its end is missing."""
        if self._gzip and self._begun and not self._gzip.eof:
            raise Malformed(f"{self._provider}: the answer is truncated")
        return bytes(self._body)
