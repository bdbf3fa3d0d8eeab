"""How long a worker leaves a database alone that is in trouble. Pure."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_PAUSE_S = 15.0


@dataclass(slots=True)
class Trouble:
    """Failures of the database in a row; many between two pauses count as one."""

    first_pause_s: float
    failures: int = 0
    is_new: bool = False
    """Whether something has failed since the last pause."""

    def failed(self) -> None:
        """The database could not do what it should."""
        if not self.is_new:
            self.failures += 1
        self.is_new = True

    def paused(self) -> None:
        """The worker has waited, and tries again."""
        self.is_new = False

    def ended(self) -> int:
        """The database took what a job had for it; answers how many failures in a row there had been."""
        self.failures, failures = 0, self.failures
        return failures

    def pause_s(self, draw: float) -> float:
        """Seconds to wait, from half to the whole of what doubles each time: `draw` is uniform in [0, 1)."""
        longest = min(LONGEST_PAUSE_S, self.first_pause_s * 2.0 ** min(max(self.failures - 1, 0), 60))
        return longest * (1 + draw) / 2
