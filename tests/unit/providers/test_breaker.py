"""The breaker as a table of events and the state that follows each of them."""

from __future__ import annotations

import pytest

from cluster.providers.breaker import Breaker, BreakerPolicy, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

POLICY = BreakerPolicy(failures=3, cooldown_s=10.0, max_cooldown_s=25.0, probe_timeout_s=5.0)

Step = tuple[float, str, object]
"""Second, event or question, state after the event or expected answer."""

OPENED: list[Step] = [(0.0, "failure", CLOSED), (1.0, "failure", CLOSED), (2.0, "failure", OPEN)]
"""Three failures in a row; the cooldown ends at 12."""

PROBED: list[Step] = [*OPENED, (12.0, "allow", True)]

STORIES: dict[str, list[Step]] = {
    "it starts closed and lets calls through": [(0.0, "allow", True), (0.0, "allow", True)],
    "failures in a row open it": [*OPENED, (2.0, "allow", False)],
    "a success in between starts the count anew": [
        (0.0, "failure", CLOSED),
        (1.0, "failure", CLOSED),
        (2.0, "success", CLOSED),
        (3.0, "failure", CLOSED),
        (4.0, "failure", CLOSED),
    ],
    "a neutral result neither counts nor starts the count anew": [
        (0.0, "failure", CLOSED),
        (1.0, "failure", CLOSED),
        (2.0, "neutral", CLOSED),
        (3.0, "failure", OPEN),
    ],
    "it stays open for the cooldown": [*OPENED, (11.9, "allow", False), (11.9, "retry_at", 12.0)],
    "after the cooldown one probe passes": [*PROBED, (12.0, "allow", False), (12.0, "retry_at", 17.0)],
    "a good probe closes it": [*PROBED, (13.0, "success", CLOSED), (13.0, "allow", True)],
    "a failed probe opens it for twice as long": [
        *PROBED,
        (13.0, "failure", OPEN),
        (32.9, "allow", False),
        (33.0, "allow", True),
    ],
    "the cooldown grows up to its maximum": [
        *PROBED,
        (13.0, "failure", OPEN),
        (33.0, "allow", True),
        (34.0, "failure", OPEN),
        (34.0, "retry_at", 59.0),  # 25 s, not 40 s
    ],
    "a success resets the cooldown": [
        *PROBED,
        (13.0, "failure", OPEN),
        (33.0, "allow", True),
        (34.0, "success", CLOSED),
        (35.0, "failure", CLOSED),
        (35.0, "failure", CLOSED),
        (35.0, "failure", OPEN),
        (35.0, "retry_at", 45.0),
    ],
    "a neutral probe gives its place to the next": [
        *PROBED,
        (13.0, "neutral", HALF_OPEN),
        (13.0, "allow", True),
        (13.0, "allow", False),
    ],
    "a probe without a result is given up": [*PROBED, (16.9, "allow", False), (17.0, "allow", True)],
    "a late failure does not prolong the cooldown": [
        *OPENED,
        (11.0, "failure", OPEN),
        (11.0, "retry_at", 12.0),
    ],
}


@pytest.mark.parametrize("story", STORIES)
def test_breaker(story: str) -> None:
    breaker = Breaker(POLICY)
    for number, (now_s, event, expected) in enumerate(STORIES[story]):
        assert step(breaker, event, now_s) == expected, f"step {number}: {event} at {now_s}"


def step(breaker: Breaker, event: str, now_s: float) -> object:
    """Apply an event and answer the state after it, or answer a question."""
    match event:
        case "allow":
            return breaker.allow(now_s)
        case "retry_at":
            return breaker.retry_at_s(now_s)
        case "success":
            breaker.success()
        case "neutral":
            breaker.neutral()
        case _:
            breaker.failure(now_s)
    return breaker.state(now_s)
