"""From nothing to the first served prediction, installed, in an empty home: `python -m benchmarks.up`.

There is no peer that does the same, so the bound is the one we promise. The note says where the time goes;
steps in the background overlap with others.
"""

from __future__ import annotations

import time

from benchmarks.instance import finsight, fresh_home
from benchmarks.report import report

GOAL_S = 90.0


def main() -> None:
    """Start once and print the line."""
    with fresh_home() as environment:
        started = time.perf_counter()
        ready = finsight(environment, "up")
        took_s = time.perf_counter() - started
    if ready["prediction"] is None:
        raise SystemExit("no prediction was served")
    steps = ", ".join(f"{name} {seconds:g}" for name, seconds in ready["seconds"].items())
    note = f"bound, not a peer; one cold start of the whole process; seconds: {steps}"
    report("up", took_s, GOAL_S, "s", digits=1, better="lower", note=note)


if __name__ == "__main__":
    main()
