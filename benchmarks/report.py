"""The line of JSON that every benchmark prints."""

from __future__ import annotations

import json
from typing import Literal


def report(
    bench: str,
    ours: float,
    theirs: float,
    unit: str,
    *,
    digits: int | None,
    better: Literal["higher", "lower"],
    goal: float = 1.0,
    note: str,
) -> None:
    """Print what was measured beside a peer or a bound, both in `unit` and rounded to `digits` (None: whole).

    `goal` is for the ratio ours / theirs: at least that where higher is better, at most where lower is.
    """
    line = {
        "bench": bench,
        "ours": round(ours, digits),
        "theirs": round(theirs, digits),
        "unit": unit,
        "ratio": round(ours / theirs, 4),
        "goal": goal,
        "better": better,
        "note": note,
    }
    print(json.dumps(line))
