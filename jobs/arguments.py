"""Options that several jobs have, and how their values are spelled."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.market.symbols import Symbol, parse_symbol

_T = TypeVar("_T")


def parser(name: str, summary: str) -> argparse.ArgumentParser:
    """The command line of `python -m jobs.<name>`, with the option that every job has."""
    made = argparse.ArgumentParser(prog=f"python -m jobs.{name}", description=summary)
    made.add_argument(
        "--interval", type=Interval, default=Interval.D1, metavar="|".join(Interval), help="default: 1d"
    )
    return made


def _checked(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    def checked(text: str) -> _T:
        try:
            return parse(text)
        except (InputError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def _symbols(text: str) -> list[Symbol]:
    return [parse_symbol(part.strip()) for part in text.split(",") if part.strip()]


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


symbol = _checked(parse_symbol)
"""One symbol."""
symbols = _checked(_symbols)
"""Symbols with commas between them."""
moment = _checked(_moment)
"""An ISO 8601 date or time, UTC unless it says otherwise."""
