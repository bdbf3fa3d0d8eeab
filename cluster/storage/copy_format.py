"""PostgreSQL's binary COPY format to and from NumPy arrays, without a Python object for a row.

A COPY stream is a header, then for each row the number of its fields and for each field its length and its
bytes, big-endian, then a trailer. Rows whose fields have the same lengths are one structured NumPy array.
Source: https://www.postgresql.org/docs/18/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

POSTGRES_EPOCH_US = 946_684_800_000_000
"""Microseconds from 1970 to 2000: PostgreSQL counts time from 2000-01-01 UTC."""

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_CHUNK_ROWS = 8_192  # about a megabyte: stays in the processor's cache while it is filled


@dataclass(frozen=True)
class Values:
    """A column of fixed-width values; `null` (bool, one a row) marks the rows without one."""

    data: Array
    wire: str
    null: Array | None = None

    @property
    def shape_code(self) -> tuple[Array | None, int]:
        """For each row which of how many layouts the field has; None: all the same."""
        return self.null, 2

    def width(self, code: int) -> int | None:
        """Bytes of the field in rows of layout `code`; None where it is null."""
        return None if code else np.dtype(self.wire).itemsize

    def fill(self, target: Array, rows: Array | slice) -> None:
        """Put the values of `rows` into `target`."""
        target[:] = self.data[rows]


@dataclass(frozen=True)
class Words:
    """A text column: few different `words` (UTF-8), and for each row the index of its word."""

    words: Sequence[bytes]
    codes: Array

    def __post_init__(self) -> None:
        if not all(self.words):
            raise ValueError("a text column of the COPY stream must not have an empty word")

    @property
    def shape_code(self) -> tuple[Array | None, int]:
        """Rows of words of equal length have the same layout."""
        lengths = np.array([len(word) for word in self.words], dtype=np.int64)
        if len(set(lengths.tolist())) <= 1:
            return None, int(lengths.max(initial=0)) + 1
        return lengths[self.codes], int(lengths.max()) + 1

    def width(self, code: int) -> int | None:
        """Bytes of the word."""
        return code or len(self.words[0])

    def fill(self, target: Array, rows: Array | slice) -> None:
        """Put the words of `rows` into `target`."""
        target[:] = np.array(self.words, dtype=target.dtype)[self.codes[rows]]


Column = Values | Words


def timestamps(microseconds: Array) -> Values:
    """Column of `timestamptz` from microseconds since 1970 UTC."""
    return Values(microseconds - POSTGRES_EPOCH_US, ">i8")


def microseconds(postgres: Array) -> Array:
    """Microseconds since 1970 UTC out of a decoded `timestamptz`."""
    return postgres + POSTGRES_EPOCH_US


async def encode(columns: Sequence[Column], rows: int) -> AsyncIterator[bytes]:
    """The COPY stream of `rows` rows with these columns, in chunks of about a megabyte.

    Rows come grouped by layout (lengths of words, nulls) and in the given order within a group.
    """
    yield _HEADER
    for chunk in _chunks(columns, rows):
        yield chunk
    yield _TRAILER


def _chunks(columns: Sequence[Column], rows: int) -> Iterator[bytes]:
    for codes, index in _layouts(columns, rows):
        widths = [column.width(code) for column, code in zip(columns, codes, strict=True)]
        block = _empty_block(columns, widths, min(_CHUNK_ROWS, rows))
        count = rows if index is None else len(index)
        for start in range(0, count, _CHUNK_ROWS):
            stop = min(start + _CHUNK_ROWS, count)
            picked = slice(start, stop) if index is None else index[start:stop]
            part = block[: stop - start]
            for place, column in enumerate(columns):
                if widths[place] is not None:
                    column.fill(part[f"value{place}"], picked)
            yield part.tobytes()


def _layouts(columns: Sequence[Column], rows: int) -> Iterator[tuple[list[int], Array | None]]:
    """Each layout as one code a column, with the rows that have it (None: all)."""
    if rows == 0:
        return
    sizes, combined = [], np.zeros(rows, dtype=np.int64)
    for column in columns:
        code, size = column.shape_code
        sizes.append(size if code is not None else 1)
        if code is not None:
            combined = combined * size + code
    present = np.unique(combined)
    for layout in present:
        index = None if len(present) == 1 else np.flatnonzero(combined == layout)
        yield _digits(int(layout), sizes), index


def _digits(number: int, bases: Sequence[int]) -> list[int]:
    digits = []
    for base in reversed(bases):
        number, digit = divmod(number, base)
        digits.append(digit)
    return digits[::-1]


def _empty_block(columns: Sequence[Column], widths: Sequence[int | None], rows: int) -> Array:
    """Rows of one layout with everything filled in but the values."""
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for place, (column, width) in enumerate(zip(columns, widths, strict=True)):
        fields.append((f"length{place}", ">i4"))
        if width is not None:
            fields.append((f"value{place}", column.wire if isinstance(column, Values) else f"S{width}"))
    block = np.zeros(rows, dtype=fields)
    block["fields"] = len(columns)
    for place, width in enumerate(widths):
        block[f"length{place}"] = -1 if width is None else width
    return block


def decode(stream: bytes | bytearray, fields: Mapping[str, str]) -> dict[str, Array]:
    """Columns of a COPY stream of `fields` (name to NumPy type, big-endian), in this machine's byte order.

    Every field must be of fixed width and not null; the query casts and coalesces to make it so.
    """
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for name, wire in fields.items():
        layout += [(f"length of {name}", ">i4"), (name, wire)]
    dtype = np.dtype(layout)
    body = len(stream) - len(_HEADER) - len(_TRAILER)
    if body % dtype.itemsize:
        raise ValueError(f"COPY stream of {body} bytes is no multiple of the row width {dtype.itemsize}")
    rows = np.frombuffer(stream, dtype, count=body // dtype.itemsize, offset=len(_HEADER))
    columns = {name: np.empty(len(rows), np.dtype(wire).newbyteorder("=")) for name, wire in fields.items()}
    for start in range(0, len(rows), _CHUNK_ROWS):  # all fields of some rows: a row is fetched only once
        part = slice(start, start + _CHUNK_ROWS)
        for name, column in columns.items():
            column[part] = rows[name][part]
    return columns
