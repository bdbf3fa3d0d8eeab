"""The rules of a lease on the worker's side. Pure: seconds of a monotonic clock in, decisions out.

The database decides who holds a lease. These rules only keep a worker from going on in vain: it counts from
before it asked, so its own idea of the lease always ends before the database's.
"""

from __future__ import annotations

from dataclasses import dataclass

BACKOFF_BASE_S = 2.0
BACKOFF_CAP_S = 600.0


@dataclass(frozen=True, slots=True)
class Tenure:
    """A lease as its holder counts it, on the holder's monotonic clock."""

    renewed_at_s: float
    """When the claim or the last accepted heartbeat was sent."""
    lease_s: float

    @property
    def beat_at_s(self) -> float:
        """When the next heartbeat is due: two may fail before the lease ends."""
        return self.renewed_at_s + self.lease_s / 3

    @property
    def stop_at_s(self) -> float:
        """When work stops because the lease may end: a tenth of it is kept for stopping."""
        return self.renewed_at_s + 0.9 * self.lease_s

    def renewed(self, sent_at_s: float) -> Tenure:
        """The tenure after a heartbeat sent at `sent_at_s` was accepted."""
        return Tenure(max(self.renewed_at_s, sent_at_s), self.lease_s)


def backoff_s(attempt: int, draw: float) -> float:
    """Seconds to wait after failed attempt number `attempt` (1 is the first), `draw` uniform in [0, 1).

    Full jitter: uniform between 0 and min(cap, base x 2^attempt).
    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return draw * min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(attempt, 60))
