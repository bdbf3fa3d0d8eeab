"""Computed features in and out of `feature_engineered_data`, in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import BadFeatures
from cluster.market.intervals import Interval
from cluster.storage.copy_format import Column, Values, Words, decode, microseconds, timestamps
from cluster.storage.copy_stream import copy_in, copy_out, opened, require_aware
from cluster.storage.database import Connection, Database

INDICATORS = (
    "close_to_sma_10", "close_to_sma_20", "close_to_sma_50", "close_to_ema_12", "close_to_ema_26",
    "macd_pct", "macd_signal_pct", "macd_hist_pct", "adx_14", "di_diff_14", "aroon_osc_25",
    "linreg_slope_pct_14", "rsi_7", "rsi_14", "rsi_28", "stoch_k", "stoch_d", "willr_14", "cci_20",
    "roc_1", "roc_5", "roc_21", "ultosc", "stochrsi_14", "bop", "natr_14", "bb_pctb_20", "bb_width_20",
    "trange_pct", "vol_20", "vol_60", "mfi_14", "obv_chg_20", "adosc_norm", "vol_ratio_20", "vol_z_50",
)  # fmt: skip
WAVELETS = (
    "w_d1", "w_d2", "w_d3", "w_d4", "w_a4", "w_e1", "w_e2", "w_e3", "w_e4", "w_re1", "w_re2", "w_re3",
    "w_re4", "w_ent",
)  # fmt: skip
FEATURE_COLUMNS = INDICATORS + WAVELETS
"""The feature columns of the table, in its order."""

FEATURE_SCHEMA = pa.schema(
    [
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        *(pa.field(name, pa.float32()) for name in FEATURE_COLUMNS),
    ]
)
"""Bar open and the features of that bar; null before a feature's warm-up."""

_FIELDS = {"timestamp": ">i8", **dict.fromkeys(FEATURE_COLUMNS, ">f4")}
_NAMES = ", ".join(FEATURE_COLUMNS)
_STAGE = f"""
CREATE TEMP TABLE staged_features ON COMMIT DROP AS
SELECT symbol, interval, timestamp, feature_set, {_NAMES} FROM feature_engineered_data WITH NO DATA
"""  # noqa: S608 (column names of our own)
_MERGE = f"""
INSERT INTO feature_engineered_data AS stored (symbol, interval, timestamp, feature_set, {_NAMES})
SELECT * FROM staged_features ORDER BY timestamp
ON CONFLICT (symbol, interval, timestamp, feature_set) DO UPDATE
SET ({_NAMES}, created_at) = ROW ({", ".join(f"excluded.{name}" for name in FEATURE_COLUMNS)}, now())
WHERE ({", ".join(f"stored.{name}" for name in FEATURE_COLUMNS)})
      IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in FEATURE_COLUMNS)})
"""  # noqa: S608
_READ = f"""
SELECT timestamp, {", ".join(f"coalesce({name}, 'NaN')" for name in FEATURE_COLUMNS)}
FROM (
    SELECT * FROM feature_engineered_data
    WHERE symbol = $1 AND interval = $2 AND feature_set = $3
      AND timestamp >= coalesce($4::timestamptz, '-infinity')
      AND timestamp < coalesce($5::timestamptz, 'infinity')
    ORDER BY timestamp {{direction}} LIMIT $6
) AS kept
ORDER BY timestamp
"""  # noqa: S608


async def write(
    connection: Connection,
    symbol: str,
    interval: Interval,
    ts: npt.NDArray[np.datetime64],
    values: npt.NDArray[np.float32],
    names: Sequence[str],
    feature_set: str,
) -> int:
    """Store the features `values` (T, 50) of the bars that open at `ts` (T, UTC, each once).

    Goes on inside the caller's transaction. `names` are the columns of `values`, all of `FEATURE_COLUMNS` in
    any order; NaN is stored as null. Returns how many rows were new or changed. Raises `BadFeatures` when the
    names or the shapes do not fit.
    """
    columns = _columns(symbol, interval, ts, values, names, feature_set)
    await connection.execute(_STAGE)
    await copy_in(connection, "staged_features", columns, len(ts))
    status = await connection.execute(_MERGE)
    await connection.execute("DROP TABLE staged_features")
    return int(status.rsplit(" ", 1)[1])  # "INSERT 0 count"


async def read(
    source: Database | str,
    symbol: str,
    interval: Interval,
    feature_set: str,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    *,
    newest: bool = False,
) -> pa.Table:
    """Features of the bars with start <= timestamp < end, oldest first, as `FEATURE_SCHEMA`.

    `limit` keeps the first so many rows, or the last so many if `newest`.
    """
    require_aware(start, end)
    query = _READ.format(direction="DESC" if newest else "ASC")
    async with opened(source) as database, database.connection() as connection:
        stream = await copy_out(connection, query, symbol, interval, feature_set, start, end, limit)
    rows = decode(stream, _FIELDS)
    opens = pa.array(microseconds(rows.pop("timestamp"))).cast(FEATURE_SCHEMA.field("timestamp").type)
    arrays = [opens, *(pa.array(feature, mask=np.isnan(feature)) for feature in rows.values())]
    return pa.Table.from_arrays(arrays, schema=FEATURE_SCHEMA)


def _columns(
    symbol: str,
    interval: Interval,
    ts: npt.NDArray[np.datetime64],
    values: npt.NDArray[np.float32],
    names: Sequence[str],
    feature_set: str,
) -> dict[str, Column]:
    _check(ts, values, names)
    one_word = np.zeros(len(ts), dtype=np.int8)
    features = {name: np.ascontiguousarray(values[:, place]) for place, name in enumerate(names)}
    return {
        "symbol": Words([symbol.encode()], one_word),
        "interval": Words([interval.encode()], one_word),
        "timestamp": timestamps(ts.astype("datetime64[us]").astype(np.int64)),
        "feature_set": Words([feature_set.encode()], one_word),
        **{name: Values(feature, ">f4", np.isnan(feature)) for name, feature in features.items()},
    }


def _check(ts: npt.NDArray[np.datetime64], values: npt.NDArray[np.float32], names: Sequence[str]) -> None:
    if sorted(names) != sorted(FEATURE_COLUMNS):
        missing, unknown = set(FEATURE_COLUMNS) - set(names), set(names) - set(FEATURE_COLUMNS)
        raise BadFeatures(
            f"{len(names)} feature names given, expected the {len(FEATURE_COLUMNS)} of "
            f"feature_engineered_data once each; missing: {sorted(missing)}, unknown: {sorted(unknown)}"
        )
    if values.shape != (len(ts), len(names)):
        raise BadFeatures(f"features have the shape {values.shape}, expected {(len(ts), len(names))}")
    if len(np.unique(ts)) != len(ts):
        raise BadFeatures("features hold one bar more than once; expected each bar open once")
