"""Why bars are missing, and what is to be done about it. Pure.

| class | decided by | asked for again | counts for the service level |
|---|---|---|---|
| closed | the calendar: no bar is expected, see `calendars.expected_opens` | no | no |
| pending | the clock: the bar has closed only just now, see `plan.settled_end` | no | no |
| not_fetched | nobody has answered for it yet | yes | yes |
| no_data | a provider answered, and had nothing at all | yes, others first | yes |
| provider_hole | a provider lacks it and has its neighbours | yes, others first | yes |
| rejected | the bars that came break the rules | yes, others first | yes |
| no_trades | two providers lack it and have its neighbours | no | no |
| venue_down | no watched symbol of the venue has it, and all who offer it were asked | no | no |
| unfillable | nobody reaches back to it, or `TRIES` spaced tries at each were in vain | no | apart |

A minute without trades that a provider sends as a bar of its own is stored like any other and is no gap.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

GapClass = Literal[
    "not_fetched", "no_data", "provider_hole", "rejected", "no_trades", "venue_down", "unfillable"
]
AnswerCause = Literal["no_data", "provider_hole", "rejected"]

COUNTING: tuple[GapClass, ...] = ("not_fetched", "no_data", "provider_hole", "rejected")
"""Those that violate the service level, and that are asked for again."""
TRIES = 5
"""Spaced tries at one provider, or jobs without any answer, after which nobody is asked any more."""
_TELLING: tuple[AnswerCause, ...] = ("provider_hole", "rejected", "no_data")


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider was asked for the bars and did not have them."""

    provider: str
    cause: AnswerCause
    tries: int
    recheck_at: datetime
    """It is not asked again before."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What some missing bars are, and who to ask for them."""

    cause: GapClass
    evidence: str
    """For people."""
    provider: str | None = None
    """Whom to ask next; `None` with a class that is asked for again: whoever the router finds."""
    not_before: datetime | None = None
    """When to ask; `None`: at once."""

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody is to be asked."""
        return self.cause in COUNTING


def classify(
    answers: Sequence[Answer],
    able: Collection[str] | None,
    *,
    tries: int,
    venue_lacks: bool,
    failed: Collection[str] = (),
) -> Verdict:
    """The class of missing bars that are expected and settled.

    `answers` holds the last one of each provider, `able` the providers that offer the bars, `None` when that
    is not known, `tries` how often a job was made for them, `venue_lacks` whether all symbols of their venue
    lack them, too, `failed` the providers that gave no answer lately: others go before them.
    """
    names = ", ".join(sorted(each.provider for each in answers))
    unasked = sorted(set(able or ()) - {each.provider for each in answers})
    if venue_lacks and answers and not unasked:
        return Verdict("venue_down", f"missing for every watched symbol of the venue; asked: {names}")
    holes = sorted(each.provider for each in answers if each.cause == "provider_hole")
    if len(holes) > 1:
        return Verdict("no_trades", f"missing between neighbours at {', '.join(holes)}")
    if able is not None and not able:
        return Verdict("unfillable", "no provider offers these bars" + (f"; asked: {names}" if names else ""))
    if not answers:
        if tries >= TRIES:
            return Verdict("unfillable", f"{tries} jobs ended without an answer")
        return Verdict("not_fetched", "")
    if unasked:
        return _unasked(answers, unasked, failed, tries)
    return _asked(answers, able)


def _unasked(
    answers: Sequence[Answer], unasked: Sequence[str], failed: Collection[str], tries: int
) -> Verdict:
    """To be asked for from those who have not answered yet, in turn: one that fails is not in others' way."""
    cause, evidence = _told(answers)
    if tries >= TRIES * (len(answers) + len(unasked)):
        silent = ", ".join(unasked)
        return Verdict("unfillable", f"{evidence}; {tries} jobs ended without an answer of {silent}")
    turn = [name for name in unasked if name not in failed] or unasked
    return Verdict(cause, evidence, turn[tries % len(turn)])


def _asked(answers: Sequence[Answer], able: Collection[str] | None) -> Verdict:
    cause, evidence = _told(answers)
    asked = [each for each in answers if able is None or each.provider in able]
    if all(each.tries >= TRIES for each in asked):
        return Verdict("unfillable", evidence)
    again = min((each for each in asked if each.tries < TRIES), key=lambda each: each.recheck_at)
    return Verdict(cause, evidence, again.provider, again.recheck_at)


def _told(answers: Sequence[Answer]) -> tuple[AnswerCause, str]:
    """The cause that tells most, and all answers for people."""
    telling = min(answers, key=lambda each: _TELLING.index(each.cause))
    return telling.cause, ", ".join(f"{each.provider}: {each.cause} ({each.tries}x)" for each in answers)
