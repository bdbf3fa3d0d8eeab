"""Opaque cursors: a page ends with the key of its last item, and the next one starts after it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import Annotated, TypeVar

from fastapi import Query

from cluster.errors import InputError
from cluster.market.symbols import parse_symbol
from serve_apps.problems import FieldError, InvalidRequest

_Item = TypeVar("_Item")

Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of this page.")]

_MOST_DIGITS = 18  # fits the database's bigint


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
        last = decoded(cursor)
        if last not in keys:
            raise unknown()
        start = keys.index(last) + 1
    chosen = list(items[start : start + limit])
    more = start + limit < len(items)
    return chosen, encoded(key(chosen[-1])) if more else None


def head(
    items: Sequence[_Item], key: Callable[[_Item], str], limit: int
) -> tuple[Sequence[_Item], str | None]:
    """The page out of `limit + 1` items that were asked for, and the cursor of the next one."""
    chosen = items[:limit]
    return chosen, encoded(key(chosen[-1])) if len(items) > limit else None


def encoded(key: str) -> str:
    """The cursor of a page that ends with the item of this key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decoded(cursor: str) -> str:
    """The key that the page before ended with; raises `InvalidRequest` for what is no cursor."""
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise unknown() from None


def as_moment(key: str) -> datetime:
    """The time that stands in a cursor; raises `InvalidRequest`."""
    try:
        moment = datetime.fromisoformat(key)
        if moment.utcoffset() == timedelta(0) and moment.year < MAXYEAR:
            return moment.astimezone(UTC)
    except ValueError:
        pass
    raise unknown()


def as_symbol(key: str) -> str:
    """The symbol that stands in a cursor; raises `InvalidRequest`."""
    try:
        return parse_symbol(key)
    except InputError:
        raise unknown() from None


def as_number(key: str) -> int:
    """The number that stands in a cursor; raises `InvalidRequest`."""
    if len(key) <= _MOST_DIGITS and key.isascii() and key.isdecimal():
        return int(key)
    raise unknown()


def unknown() -> InvalidRequest:
    """The answer to a cursor that was not made here."""
    detail = "expected the `next_cursor` of an earlier page; start again without a cursor"
    return InvalidRequest(
        f"The cursor is not valid: {detail}.", [FieldError(pointer="query cursor", detail=detail)]
    )
