"""One answer of a provider, after its bars were checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import structlog

from cluster.market import bars
from cluster.market.instants import Instants, to_moment

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What of an answer lies in the range that was asked for."""

    good: pa.Table
    """The valid bars in the range."""
    rejected: pa.Table
    """The others in the range, with their reasons; see `bars.Validated`."""
    answered: int
    """All bars of the answer."""

    @property
    def opens(self) -> Instants:
        """Of all bars in the range, valid or not; in no order."""
        return np.concatenate([bars.opens(self.good), bars.opens(self.rejected)])

    @property
    def last(self) -> datetime | None:
        """The last of `opens`; the next page begins after it."""
        return to_moment(self.opens.max()) if len(self.opens) else None


def page_of(checked: bars.Validated, start: datetime, end: datetime) -> Page:
    """The page that `checked` is of [start, end)."""
    dated = checked.rejected.filter(checked.rejected["ts"].is_valid())
    answered = len(checked.good) + len(checked.rejected)
    return Page(bars.between(checked.good, start, end), bars.between(dated, start, end), answered)


def joined(pages: Sequence[Page]) -> pa.Table:
    """The valid bars of all pages, ascending; the others travel along, see `bars.with_rejected`."""
    if not pages:
        return bars.empty()
    good = bars.concat(page.good for page in pages).sort_by("ts")
    return bars.with_rejected(good, pa.concat_tables([page.rejected for page in pages]))


def tell_rejected(provider: str, rejected: pa.Table) -> None:
    """Log how many bars were rejected, and why the first was."""
    # A number, because a ts in the wrong unit is beyond the years that Python knows.
    ts_us, reason = rejected["ts"].cast(pa.int64())[0], rejected["reason"][0]
    _log.warning(
        "bars_rejected", provider=provider, count=len(rejected),
        first_ts_us=ts_us.as_py(), first_reason=reason.as_py(),
    )  # fmt: skip
