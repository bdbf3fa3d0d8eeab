from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.copy_format import Column, Values, Words, decode, encode, microseconds, timestamps


def stream(columns: Sequence[Column], rows: int) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in encode(columns, rows)])

    return asyncio.run(collect())


def test_a_row_is_counted_and_each_field_has_its_length() -> None:
    number, word = Values(np.array([258]), ">i4"), Words([b"AAPL"], np.array([0]))
    columns: list[Column] = [number, word, Values(np.array([True]), "?")]
    assert stream(columns, 1).hex(" ", 1) == (
        "50 47 43 4f 50 59 0a ff 0d 0a 00 00 00 00 00 00 00 00 00 "  # PGCOPY, flags, extension
        "00 03 "  # fields
        "00 00 00 04 00 00 01 02 "
        "00 00 00 04 41 41 50 4c "
        "00 00 00 01 01 "
        "ff ff"  # end
    )


def test_a_null_has_the_length_minus_one_and_no_bytes() -> None:
    columns = [Values(np.array([1.0, np.nan]), ">f8", np.array([False, True]))]
    assert stream(columns, 2)[19:].hex() == "0001000000083ff00000000000000001ffffffffffff"


def test_rows_with_fields_of_different_lengths_come_grouped_and_in_order() -> None:
    words = Words([b"F", b"GE", b"T"], np.array([1, 0, 1, 2]))
    numbers = Values(np.arange(4, dtype=np.int8), ">i1")
    body = stream([words, numbers], 4)[19:-2]
    assert body == b"".join(
        b"\0\2" + b"\0\0\0" + bytes([len(word)]) + word + b"\0\0\0\1" + bytes([number])
        for word, number in [(b"F", 1), (b"T", 3), (b"GE", 0), (b"GE", 2)]
    )


def test_no_rows_are_a_header_and_a_trailer() -> None:
    assert stream([Values(np.array([], dtype=np.float64), ">f8")], 0)[19:] == b"\xff\xff"


def test_an_empty_word_is_refused() -> None:
    with pytest.raises(ValueError, match="empty word"):
        Words([b"AAPL", b""], np.array([0]))


def test_a_stream_that_is_not_of_the_expected_width_is_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of the row width"):
        decode(stream([Values(np.array([1, 2]), ">i4")], 2), {"number": ">i8"})


def test_postgres_counts_microseconds_from_the_year_2000() -> None:
    since_1970 = np.array(["1999-12-31T23:59:59.999999", "2000-01-01"], "datetime64[us]").astype(np.int64)
    assert timestamps(since_1970).data.tolist() == [-1, 0]
    assert microseconds(np.array([-1, 0])).tolist() == since_1970.tolist()


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans())))
def test_what_was_encoded_is_decoded(rows: list[tuple[int, float, bool]]) -> None:
    numbers, floats, flags = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    columns = [
        Values(np.array(numbers, dtype=np.int64), ">i8"),
        Values(np.array(floats, dtype=np.float64), ">f8"),
        Values(np.array(flags, dtype=bool), "?"),
    ]
    found = decode(stream(columns, len(rows)), {"number": ">i8", "float": ">f8", "flag": "?"})
    assert list(zip(*(found[name].tolist() for name in ("number", "float", "flag")), strict=True)) == rows


@pytest.mark.parametrize("rows", [8_191, 8_192, 8_193, 20_000])
def test_chunks_join_without_a_gap(rows: int) -> None:
    found = decode(stream([Values(np.arange(rows), ">i8")], rows), {"number": ">i8"})
    assert found["number"].tolist() == list(range(rows))
