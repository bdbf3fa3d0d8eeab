"""What a check of `finsight doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "failed", "off"]
    """`warning`: FinSight works, but not well; `off`: not running, which may be meant so."""
    detail: str
    remedy: str = ""
    """What to do about it, without the full stop."""
