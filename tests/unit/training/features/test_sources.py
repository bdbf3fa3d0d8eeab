"""Calls that look ahead or invent data occur nowhere outside the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PACKAGES = ("cluster", "training", "serve_apps", "jobs", "benchmarks")
FORBIDDEN = re.compile(
    r"""
    \b(?:i?swt|wavedec|waverec|i?mran?)\b    # whole-series wavelet transforms read later bars
    | \bbfill\b | method=["']backfill["']    # a later value in an earlier row
    | \bmin_periods\s*=\s*1\b                # averages of windows that are not there
    | \.fillna\([^)]*mean                    # the mean of the whole column knows the future
    """,
    re.VERBOSE,
)


def findings(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if FORBIDDEN.search(line)]


def test_no_source_file_looks_ahead() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert any(path.name == "wavelets.py" for path in files)
    assert {str(path): found for path in files if (found := findings(path.read_text()))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "pywt.swt(x, 'db4')",
        "coefficients = wavedec(x)",
        "pywt.mra(x, 'db4')",
        "frame.bfill()",
        "frame.reindex(i, method='backfill')",
        "frame.rolling(20, min_periods=1).mean()",
        "frame.fillna(frame.mean())",
    ],
)
def test_the_check_finds_what_it_looks_for(line: str) -> None:
    assert findings(line) == [line]


@pytest.mark.parametrize(
    "line", ["from cluster import backfill", "rolling(20, min_periods=10)", "x.fillna(0)"]
)
def test_the_check_lets_honest_lines_pass(line: str) -> None:
    assert findings(line) == []
