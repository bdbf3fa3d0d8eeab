"""What an error means for its job."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster import errors
from cluster.backfill.verdict import GiveUp, Retry, Snooze, Verdict, explain, verdict

LATER = datetime(2025, 10, 8, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.RateLimited("budget used up", LATER), Snooze(LATER)),  # not a failure
        (errors.NotEntitled("not in the plan"), GiveUp()),
        (errors.InvalidSymbol("no such symbol"), GiveUp()),
        (errors.InputError("interval not offered"), GiveUp()),
        (errors.ProviderDown("502"), Retry()),
        (errors.Malformed("HTML"), Retry()),
        (RuntimeError("a bug"), Retry()),
    ],
)
def test_each_kind_of_error_has_its_effect(error: Exception, expected: Verdict) -> None:
    assert verdict(error) == expected


def test_the_reason_names_the_kind_of_error() -> None:
    assert explain(errors.ProviderDown("502 from the provider")) == "ProviderDown: 502 from the provider"
    assert explain(TimeoutError()) == "TimeoutError"
