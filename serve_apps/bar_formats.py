"""Stored bars as JSON, CSV, an Arrow stream or Parquet. CPU work: call it in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from serve_apps.market_schemas import StoredBar

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

_FIELDS = list(StoredBar.model_fields)
_COLUMNS = ["symbol", "interval", *_FIELDS]
_ROWS_AT_ONCE = 2_000


def json_parts(envelope: Mapping[str, object], bars: pa.Table) -> Iterator[bytes]:
    """The object `envelope` with the bars as its list `items`, in parts of some thousand rows.

    Rows become Python objects on the way, so one part holds the interpreter for milliseconds only.
    """
    yield orjson.dumps(dict(envelope))[:-1] + b',"items":['
    rows = bars.select(_FIELDS)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = orjson.dumps(rows.slice(start, _ROWS_AT_ONCE).to_pylist(), option=orjson.OPT_UTC_Z)
        yield (b"," if start else b"") + part[1:-1]
    yield b"]}"


def _csv(bars: pa.Table) -> bytes:
    place = bars.schema.get_field_index("ts")
    sink = pa.BufferOutputStream()
    options = pa.csv.WriteOptions(quoting_header="none")
    pa.csv.write_csv(bars.set_column(place, "ts", _iso(bars["ts"])), sink, options)
    return _written(sink)


def _iso(moments: pa.ChunkedArray) -> pa.ChunkedArray:
    """ISO 8601 in UTC with Z; fractions of a second only where one of them has some."""
    with suppress(pa.ArrowInvalid):  # it would lose data
        moments = moments.cast(pa.timestamp("s", tz="UTC"))
    return pc.strftime(moments, format="%Y-%m-%dT%H:%M:%SZ")


def _arrow(bars: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, bars.schema) as stream:
        stream.write_table(bars, max_chunksize=65_536)
    return _written(sink)


def _parquet(bars: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(bars, sink, compression="zstd")
    return _written(sink)


def _written(sink: pa.BufferOutputStream) -> bytes:
    made: bytes = sink.getvalue().to_pybytes()
    return made


_FILES: Mapping[str, Callable[[pa.Table], bytes]] = {CSV: _csv, ARROW: _arrow, PARQUET: _parquet}

MEDIA_TYPES = (JSON, *_FILES)
"""What bars are answered as, the default first."""


def file(media_type: str, bars: pa.Table) -> bytes:
    """The bars as a whole file with a column for symbol and interval; for every type but JSON."""
    return _FILES[media_type](bars.select(_COLUMNS).combine_chunks())
