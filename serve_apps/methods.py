"""Which methods a path answers to; HEAD like GET, without the body."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def allowed(request: Request) -> str:
    """Every method that is served at this path, as the header `Allow` wants them."""
    found = {method for method in _METHODS if _is_served({**request.scope, "method": method})}
    return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))


def _is_served(scope: Scope) -> bool:
    return any(route.matches(dict(scope))[0] is Match.FULL for route in scope["app"].routes)


class HeadLikeGet:
    """ASGI middleware: the routes see a GET, and the caller gets its status and headers only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        got = {**scope, "method": "GET"}  # the server goes by its own and expects no body then
        try:
            await self._app(got, receive, without_body)
        finally:
            scope["route"] = got.get("route")  # for who counts
