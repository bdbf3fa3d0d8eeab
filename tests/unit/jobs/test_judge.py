from __future__ import annotations

from typing import Any

import pytest

from jobs.evaluate import _verdict, judge


def report(rmse: float, winkler: float) -> dict[str, Any]:
    ensemble = {"rmse": rmse, "winkler": winkler}
    return {"rows": 10, "start": "2020-01-02T14:30:00Z", "models": {"ensemble": ensemble}}


CHAMPION = report(0.010, 0.040)


@pytest.mark.parametrize(
    ("rmse", "winkler", "promoted", "why"),
    [
        (0.009, 0.039, True, "better than the champion"),
        (0.009, 0.040, True, "better than the champion"),
        (0.010, 0.039, True, "better than the champion"),
        (0.010, 0.040, False, "not better than the champion"),
        (0.011, 0.039, False, "worse than the champion in rmse on 10 rows"),
        (0.009, 0.041, False, "worse than the champion in winkler on 10 rows"),
        (0.011, 0.041, False, "worse than the champion in rmse and winkler on 10 rows"),
    ],
)
def test_no_score_may_be_worse_and_one_must_be_better(
    rmse: float, winkler: float, promoted: bool, why: str
) -> None:
    verdict = judge(report(rmse, winkler), CHAMPION)
    assert verdict.promote is promoted
    assert verdict.why.startswith(why)


def test_the_reason_shows_the_scores() -> None:
    assert judge(report(0.009, 0.039), CHAMPION).why == (
        "better than the champion on 10 rows since 2020-01-02T14:30:00Z: "
        "rmse 0.009 against 0.01, winkler 0.039 against 0.04"
    )


@pytest.mark.parametrize("promote", ["auto", "always", "never"])
def test_the_champion_is_not_promoted_again(promote: str) -> None:
    verdict = _verdict(promote, CHAMPION, None, "", is_champion=True)
    assert (verdict.promote, verdict.why) == (False, "it is the champion already")


def test_the_first_version_is_promoted_and_so_is_the_heir_of_one_that_cannot_be_served() -> None:
    assert _verdict("auto", CHAMPION, None, "", is_champion=False).why == "there was no champion"
    heir = _verdict("auto", CHAMPION, None, "champion 1 cannot be served", is_champion=False)
    assert (heir.promote, heir.why) == (True, "champion 1 cannot be served")


def test_always_and_never_do_not_ask_for_the_scores() -> None:
    worse = report(0.1, 0.1)
    assert _verdict("always", worse, CHAMPION, "", is_champion=False).promote
    assert not _verdict("never", CHAMPION, worse, "", is_champion=False).promote
