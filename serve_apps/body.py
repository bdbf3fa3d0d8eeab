"""Reads a JSON body: capped while it arrives, then parsed in one strict pass.

FastAPI's own parser would read the whole body first, and take NaN for a number.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serve_apps import problems

_Model = TypeVar("_Model", bound=BaseModel)

TIMEOUT_S = 30.0
"""A sender of one byte a second would otherwise hold a place in the replica for days."""


async def read(request: Request, model: type[_Model], max_bytes: int) -> _Model:
    """The validated body of `request`.

    Answers 415 for anything but plain JSON, 413 over `max_bytes` (declared or sent), 408 when it takes longer
    than `TIMEOUT_S` to arrive, 422 for invalid input.
    """
    _require_plain_json(request)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            sent = await _bytes(request, max_bytes)
    except TimeoutError:
        raise HTTPException(
            HTTPStatus.REQUEST_TIMEOUT,
            f"The body did not arrive within {TIMEOUT_S:g} s.",
            {"Connection": "close"},
        ) from None
    return problems.parse(model, sent)


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` that documents the body; `serve_apps.documents` adds the schema it refers to."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def _require_plain_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "none").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity")
    if media_type != "application/json" or encoding != "identity":
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send the body as uncompressed JSON with the header `Content-Type: application/json`; "
            f"given: type {media_type}, encoding {encoding}.",
        )


async def _bytes(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> HTTPException:
    # The rest of the body stays unread, so the connection cannot be used again.
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {limit} bytes. Send fewer rows, or raise FINSIGHT_MAX_BODY_BYTES.",
        {"Connection": "close"},
    )
