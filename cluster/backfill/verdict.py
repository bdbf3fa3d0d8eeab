"""What an error means for the job it happened to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cluster.errors import InputError, InvalidSymbol, NotEntitled, OutOfHorizon, RateLimited, Refused


@dataclass(frozen=True, slots=True)
class Snooze:
    """Nothing is wrong; wait until `retry_at`, no attempt is used."""

    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """It may work later; an attempt is used."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It will never work; a person has to look."""


Verdict = Snooze | Retry | GiveUp


def verdict(error: Exception) -> Verdict:
    """What to do with the job: limits and refused keys wait, other refusals are final, the rest may pass."""
    if isinstance(error, RateLimited):
        return Snooze(error.retry_at)
    if isinstance(error, Refused) and error.retry_at is not None:
        return Snooze(error.retry_at)
    if isinstance(error, NotEntitled | InvalidSymbol | OutOfHorizon | InputError):
        return GiveUp()
    return Retry()


def explain(error: Exception) -> str:
    """The reason that is kept with the job: the kind of error and its text."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
