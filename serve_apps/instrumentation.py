"""Counts and times every request, gives it an id, and answers what nobody expected to go wrong.

Plain ASGI, so that it costs microseconds.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid

import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import metrics
from serve_apps import problems

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_CLIENT_LEFT = 499
"""Counted for a request whose sender went away; nginx made the number customary."""

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Instrumentation:
    """ASGI middleware: metrics by route template, and `X-Request-ID` from the caller or made here.

    The answer has the id too, unless `answer_id` is false because the server in front adds it.
    Labels come from closed sets: the template of the matched route (`other` without one), known methods.
    """

    def __init__(self, app: ASGIApp, *, answer_id: bool = True) -> None:
        self._app = app
        self._answer_id = answer_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = _request_id(scope)
        status: int | None = None
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._answer_id:
                    message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, observed)
            except (ClientDisconnect, asyncio.CancelledError) as error:
                # Nobody is there to be answered, and nothing of ours went wrong.
                status = _CLIENT_LEFT
                if isinstance(error, asyncio.CancelledError):
                    raise
            except Exception as error:
                # Not a handler of the app: those run outside of its middleware, without id and count.
                answer = problems.unexpected(Request(scope), error)
                if status is None:
                    await answer(scope, receive, observed)
            finally:
                _observe(scope, status or 500, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _observe(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "other")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.http_requests_total.labels(route, method, status).inc()
    metrics.http_request_duration_seconds.labels(route, method).observe(seconds)
