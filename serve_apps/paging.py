"""Opaque cursors: a page ends with the key of its last item, and the next one starts after it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from serve_apps.problems import FieldError, InvalidRequest

_Item = TypeVar("_Item")


def page(
    items: Sequence[_Item], key: Callable[[_Item], str], cursor: str | None, limit: int
) -> tuple[list[_Item], str | None]:
    """At most `limit` of `items` after `cursor`, and the cursor of the next page (`None` on the last).

    `items` keep their order; raises `InvalidRequest` for a cursor that was not made here, or whose item
    is gone.
    """
    start = 0
    if cursor is not None:
        keys = [key(item) for item in items]
        last = _decoded(cursor)
        if last not in keys:
            raise _unknown()
        start = keys.index(last) + 1
    chosen = list(items[start : start + limit])
    more = start + limit < len(items)
    return chosen, _encoded(key(chosen[-1])) if more else None


def _encoded(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise _unknown() from None


def _unknown() -> InvalidRequest:
    detail = "expected the `next_cursor` of an earlier page; start again without a cursor"
    return InvalidRequest(
        f"The cursor is not valid: {detail}.", [FieldError(pointer="query cursor", detail=detail)]
    )
