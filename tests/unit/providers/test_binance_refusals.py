"""What a refusal of Binance means for us."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from cluster.errors import (
    Banned,
    FinSightError,
    InputError,
    InvalidSymbol,
    Malformed,
    ProviderDown,
    RateLimited,
    Restricted,
    Unauthorized,
)
from cluster.providers import binance_refusals
from cluster.providers.binance_refusals import refusal_by_code, refusal_by_status
from cluster.providers.http import Answer

NOW = datetime(2026, 7, 26, 7, 0, tzinfo=UTC)
RESTRICTED = {
    "code": 0,
    "msg": "Service unavailable from a restricted location according to 'b. Eligibility' in the terms.",
}


def answer(status: int, document: object, received_at: datetime = NOW, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, named, json.dumps(document).encode(), received_at, "binance")


def refusal(status: int, code: int, message: str, symbol: str | None = "BTCUSDT") -> FinSightError | None:
    document = {"code": code, "msg": message}
    return refusal_by_code(answer(status, document), document, symbol)


def ban(until_ms: int, received_at: datetime = NOW, **headers: str) -> RateLimited:
    message = f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams."
    document = {"code": -1003, "msg": message}
    return binance_refusals.throttled(answer(418, document, received_at, **headers), "banned")


def to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)


def test_a_throttled_call_may_come_back_after_the_seconds_of_retry_after() -> None:
    error = binance_refusals.throttled(answer(429, {"code": -1003, "msg": "slow"}, retry_after="7"), "slow")
    assert error.retry_at == NOW + timedelta(seconds=7)
    assert not isinstance(error, Banned)


def test_a_ban_lasts_until_the_later_of_its_text_and_its_header() -> None:
    until = NOW + timedelta(minutes=5)
    assert type(ban(to_ms(until))) is Banned
    assert ban(to_ms(until), retry_after="120").retry_at == until
    assert ban(to_ms(until), retry_after="600").retry_at == NOW + timedelta(seconds=600)


def test_a_ban_is_told_by_the_clock_of_the_venue() -> None:
    ours_is_slow = NOW - timedelta(hours=1)
    error = ban(to_ms(NOW + timedelta(minutes=5)), ours_is_slow, date="Sun, 26 Jul 2026 07:00:00 GMT")
    assert error.retry_at == ours_is_slow + timedelta(minutes=5)


def test_a_ban_without_a_time_lasts_two_minutes() -> None:
    error = binance_refusals.throttled(answer(418, {"code": -1003, "msg": "banned"}), "banned")
    assert error.retry_at == NOW + timedelta(minutes=2)


def test_a_ban_of_centuries_is_taken_for_the_longest_that_there_is() -> None:
    assert ban(9_999_999_999_999, retry_after="120").retry_at == NOW + timedelta(days=3)


def test_a_ban_that_has_ended_leaves_the_header() -> None:
    assert ban(to_ms(NOW - timedelta(hours=1)), retry_after="120").retry_at == NOW + timedelta(minutes=2)


@pytest.mark.parametrize("status", [200, 400])
def test_too_many_requests_is_a_rate_limit_under_any_status(status: int) -> None:
    error = refusal(status, -1003, "Too many requests queued.")
    assert isinstance(error, RateLimited)
    assert error.retry_at == NOW + timedelta(seconds=60)


def test_an_unknown_symbol_is_named() -> None:
    error = refusal(400, -1121, "Invalid symbol.", "NOSUCH")
    assert isinstance(error, InvalidSymbol)
    assert "'NOSUCH'" in str(error)


def test_illegal_characters_are_an_invalid_symbol_only_when_they_are_in_the_symbol() -> None:
    text = "Illegal characters found in parameter '{}'; legal range is '^[A-Z0-9-_.]{{1,20}}$'."
    assert isinstance(refusal(400, -1100, text.format("symbol")), InvalidSymbol)
    assert isinstance(refusal(400, -1100, text.format("startTime")), InputError)


def test_an_invalid_symbol_where_none_was_asked_for_is_a_wrong_request() -> None:
    assert isinstance(refusal(400, -1121, "Invalid symbol.", symbol=None), InputError)


@pytest.mark.parametrize("code", [-1101, -1102, -1104, -1120, -1127, -1128, -1130, -9999])
def test_a_wrong_request_is_our_mistake_and_nothing_else(code: int) -> None:
    assert type(refusal(400, code, "no")) is InputError


@pytest.mark.parametrize("code", [-1000, -1001, -1006, -1007, -1008, -1016])
def test_a_fault_inside_of_the_venue_is_a_failure_under_any_status(code: int) -> None:
    assert isinstance(refusal(400, code, "Internal error; unable to process your request."), ProviderDown)


@pytest.mark.parametrize("code", [-1002, -2014, -2015])
def test_a_key_that_is_refused_is_unauthorized_and_says_what_to_do(code: int) -> None:
    error = refusal(400, code, "Invalid API-key, IP, or permissions for action.")
    assert isinstance(error, Unauthorized)
    assert "BINANCE_API_KEY" in str(error)


def test_a_good_answer_is_no_refusal() -> None:
    documents: list[object] = [[], {"symbol": "BTCUSDT", "price": "1.0"}, {"code": "text"}]
    for document in documents:
        good = answer(200, document)
        assert refusal_by_status(good, 0) is None
        assert refusal_by_code(good, document, "BTCUSDT") is None


@pytest.mark.parametrize("document", [[], {}, {"code": "-1121"}, {"code": True}])
def test_a_refusal_that_says_no_code_is_malformed(document: object) -> None:
    assert isinstance(refusal_by_code(answer(400, document), document, "BTCUSDT"), Malformed)


@pytest.mark.parametrize("status", [403, 400])
def test_a_location_that_is_not_served_is_told_under_any_status(status: int) -> None:
    error = refusal_by_status(answer(status, RESTRICTED), 1)
    assert isinstance(error, Restricted)
    assert "does not serve this location" in str(error)


def test_an_unauthorized_call_is_told() -> None:
    assert isinstance(
        refusal_by_status(answer(401, {"code": -2014, "msg": "API-key format invalid."}), 0), Unauthorized
    )


def test_the_firewall_means_cool_down_first_and_a_refusal_the_third_time_in_a_row() -> None:
    page = Answer(403, {}, b"<html>ERROR: The request could not be satisfied</html>", NOW, "binance")
    for in_a_row in (1, 2):
        error = refusal_by_status(page, in_a_row)
        assert isinstance(error, RateLimited)
        assert error.retry_at == NOW + timedelta(minutes=2)
    assert isinstance(refusal_by_status(page, 3), Restricted)
