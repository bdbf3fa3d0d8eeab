"""One answer of a provider, after its bars were checked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import structlog

from cluster.market import bars
from cluster.market.instants import to_moment

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What of an answer lies in the range that was asked for."""

    good: pa.Table
    """The valid bars in the range."""
    answered: int
    """All bars of the answer."""
    last: datetime | None
    """Open of the last bar in the range, valid or not; the next page begins after it."""


def page_of(checked: bars.Validated, start: datetime, end: datetime) -> Page:
    """The page that `checked` is of [start, end)."""
    good = bars.between(checked.good, start, end)
    dated = checked.rejected.filter(checked.rejected["ts"].is_valid())
    rejected = bars.between(dated, start, end)
    opens = np.concatenate([bars.opens(good), bars.opens(rejected)])
    last = to_moment(opens.max()) if len(opens) else None
    return Page(good, len(checked.good) + len(checked.rejected), last)


def tell_rejected(provider: str, rejected: pa.Table) -> None:
    """Log how many bars were rejected, and why the first was."""
    # A number, because a ts in the wrong unit is beyond the years that Python knows.
    ts_us, reason = rejected["ts"].cast(pa.int64())[0], rejected["reason"][0]
    _log.warning(
        "bars_rejected", provider=provider, count=len(rejected),
        first_ts_us=ts_us.as_py(), first_reason=reason.as_py(),
    )  # fmt: skip
