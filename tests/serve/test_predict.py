from __future__ import annotations

import asyncio
import json
import math
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from cluster.market.intervals import Interval
from cluster.storage import predictions
from cluster.storage.database import Database
from serve_apps.prediction import bars_needed, next_opens
from training import features
from training.predictor import Predictor

BARS = ("open", "high", "low", "close", "volume")


def rows_of(table: pa.Table, count: int) -> list[list[float | None]]:
    """The newest `count` feature rows as JSON has them."""
    values = features.compute(table).values[-count:]
    return [[None if math.isnan(value) else float(value) for value in row] for row in values]


def bars_of(table: pa.Table) -> list[dict[str, Any]]:
    """Bars as a caller would send them."""
    rows = table.select(["ts", *BARS]).to_pylist()
    return [{**row, "ts": row["ts"].isoformat()} for row in rows]


def predict(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_row_of_features_gives_what_the_model_says_itself(client: TestClient, model: Predictor) -> None:
    row = [0.1] * 50

    answer = predict(client, features=row)

    direct = model.predict(np.array([row], np.float32))
    assert (answer["mean"], answer["lower"], answer["upper"]) == (
        direct.mean[0],
        direct.lower[0],
        direct.upper[0],
    )
    assert answer["members"] == {name: member[0] for name, member in direct.members.items()}
    assert answer["model"] == {"name": "finsight-1d", "version": "1"}
    assert (answer["coverage"], answer["horizon"], answer["interval"]) == (0.9, 1, "1d")
    assert answer["rows_used"] == 1
    assert "confidence" not in answer
    assert "price" not in answer


@pytest.mark.parametrize("model_type", ["xgboost", "lstm", "transformer"])
def test_a_member_can_be_asked_alone(client: TestClient, model_type: str) -> None:
    answer = predict(client, features=[0.1] * 50, model_type=model_type)
    assert answer["model_type"] == model_type
    assert answer["mean"] == answer["members"][model_type]


def test_confidence_is_the_probability_of_the_predicted_sign(client: TestClient, model: Predictor) -> None:
    row = [0.1] * 50
    direct = model.predict(np.array([row], np.float32))
    up = direct.probability_up[0]
    assert direct.mean[0] < 0  # so that the probability of the other sign is the one that is asked for

    assert predict(client, features=row, return_confidence=True)["confidence"] == 1 - up


def test_names_put_the_values_in_the_order_of_the_model(client: TestClient, model: Predictor) -> None:
    values = [round(0.01 * place, 2) for place in range(50)]
    named = dict(zip(model.feature_names, values, strict=True))
    backwards = dict(reversed(named.items()))

    assert predict(client, features=backwards) == predict(client, features=values)
    assert predict(client, features=[backwards, named]) == predict(client, features=[values, values])


def test_a_missing_name_is_a_missing_value(client: TestClient, model: Predictor) -> None:
    values: list[float | None] = [0.1] * 50
    values[13] = None
    without = {name: 0.1 for name in model.feature_names if name != model.feature_names[13]}

    assert predict(client, features=without) == predict(client, features=values)


def test_symbol_bars_and_features_of_the_same_history_agree(
    client: TestClient, spx: pa.Table, model: Predictor
) -> None:
    newest = spx.slice(spx.num_rows - bars_needed(model.window))

    by_symbol = predict(client, symbol="SPX")
    by_bars = predict(client, bars=bars_of(newest), calendar="XNYS")
    by_features = predict(client, features=rows_of(newest, model.window))

    shared = ("mean", "lower", "upper", "members", "rows_used")
    assert [by_bars[name] for name in shared] == [by_symbol[name] for name in shared]
    assert [by_features[name] for name in shared] == [by_symbol[name] for name in shared]
    assert by_symbol["rows_used"] == model.window
    assert by_bars == {name: value for name, value in by_symbol.items() if name != "symbol"}


def test_a_symbol_answer_says_from_when_for_when_and_at_which_price(client: TestClient) -> None:
    answer = predict(client, symbol="SPX")

    assert answer["symbol"] == "SPX"
    assert answer["as_of"] == "2018-12-31T14:30:00Z"
    assert answer["target_ts"] == "2019-01-02T14:30:00Z"  # New Year's Day is no session
    assert answer["last_close"] == pytest.approx(2506.85, abs=0.005)
    assert answer["price"]["mean"] == pytest.approx(answer["last_close"] * math.exp(answer["mean"]))
    assert answer["price"]["lower"] < answer["price"]["mean"] < answer["price"]["upper"]


def test_a_forecast_of_a_symbol_is_stored_and_one_of_features_is_not(
    client: TestClient, served_database: str
) -> None:
    answer = predict(client, symbol="SPX", model_type="lstm")
    stored = asyncio.run(_latest(served_database))

    assert (stored.mean, stored.lower, stored.upper) == (answer["mean"], answer["lower"], answer["upper"])
    assert (stored.model_name, stored.model_version, stored.model_type) == ("finsight-1d", "1", "lstm")
    assert stored.target_ts == datetime(2019, 1, 2, 14, 30, tzinfo=UTC)

    predict(client, features=[0.1] * 50, model_type="lstm")
    assert asyncio.run(_latest(served_database)).id == stored.id


async def _latest(dsn: str) -> predictions.StoredPrediction:
    database = await Database.open(dsn, max_size=1)
    try:
        return (await predictions.latest(database, "SPX", Interval.D1, model_type="lstm"))[0]
    finally:
        await database.close()


def test_bars_without_a_calendar_leave_the_target_out(client: TestClient, spx: pa.Table) -> None:
    answer = predict(client, bars=bars_of(spx.slice(spx.num_rows - 512)))
    assert answer["rows_used"] == 1
    assert answer["as_of"] == "2018-12-31T14:30:00Z"
    assert "target_ts" not in answer


def test_the_next_open_skips_the_weekend_and_follows_daylight_saving() -> None:
    friday = datetime(2026, 3, 6, 14, 30, tzinfo=UTC)  # the clocks change on the 8th
    assert next_opens("XNYS", Interval.D1, friday)[0] == np.datetime64("2026-03-09T13:30")


def ask(client: TestClient, body: Any) -> tuple[int, dict[str, Any]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["instance"] == "/predict"
    assert problem["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, problem


BAR = {"ts": "2018-01-02T00:00:00Z", "open": 1.5, "high": 2.0, "low": 1.0, "close": 1.5}
WRONG: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "exactly one of features, symbol, bars; given: none"),
    "two inputs": ({"symbol": "SPX", "features": [1.0]}, "given: features and symbol"),
    "unknown key": ({"symbol": "SPX", "modeltype": "lstm"}, "#/modeltype"),
    "no object": ([], "#: Input should be an object"),
    "no json": (b"{", "Invalid JSON"),
    "no body": (b"", "Invalid JSON"),
    "too few values": (
        {"features": [1.0, 2.0]},
        "#/features has 2 values: expected 50 in this order: close_to_sma_",
    ),
    "too many values": ({"features": [0.0] * 51}, "#/features has 51 values: expected 50"),
    "uneven rows": ({"features": [[0.0] * 50, [0.0] * 49]}, "#/features/1 has 49 values: expected 50"),
    "unknown name": ({"features": {"rsi": 1.0}}, "unknown names rsi: expected some of the 50 features"),
    "no values": ({"features": []}, "#/features"),
    "no rows": ({"features": [[]]}, "#/features/0 has 0 values"),
    "no names": ({"features": {}}, "none at all"),
    "only missing values": ({"features": [None] * 50}, "no known value"),
    "a word": ({"features": [*[0.0] * 49, "high"]}, "#/features/49: Input should be a valid number"),
    "a truth value": ({"features": [*[0.0] * 49, True]}, "#/features/49: Input should be a valid number"),
    "nan": (b'{"features": [NaN]}', "#/features/0: Input should be a finite number"),
    "infinity": (b'{"features": [[-Infinity]]}', "#/features/0/0: Input should be a finite number"),
    "overflow": (b'{"features": [1e309]}', "#/features/0: Input should be a finite number"),
    "float32 overflow": ({"features": [1e39]}, "#/features/0: Input should be less than or equal to"),
    "mixed rows": ({"features": [[0.0] * 50, {"rsi_14": 1.0}]}, "#/features/1"),
    "too deep": (b'{"features": ' + b"[" * 5000 + b"]" * 5000 + b"}", "recursion limit"),
    "model type": (
        {"symbol": "SPX", "model_type": "arima"},
        "'ensemble', 'xgboost', 'lstm' or 'transformer'",
    ),
    "interval": ({"symbol": "SPX", "interval": "7m"}, "#/interval"),
    "interval of features": ({"features": [0.0] * 50, "interval": "1h"}, "forecasts 1d bars only"),
    "no truth value": ({"symbol": "SPX", "return_confidence": "yes"}, "#/return_confidence"),
    "other interval": ({"symbol": "SPX", "interval": "1h"}, "model finsight-1d forecasts 1d bars only"),
    "lower case": ({"symbol": "spx"}, "upper case"),
    "sql": ({"symbol": "SPX'; DROP TABLE predictions;--"}, "#/symbol"),
    "zero byte": ({"symbol": "SPX\x00"}, "#/symbol"),
    "unknown symbol": ({"symbol": "AAPL"}, "Symbol AAPL is not in the universe"),
    "no bars": ({"bars": []}, "#/bars"),
    "naive time": (
        {"bars": [{**BAR, "ts": "2018-01-02T00:00:00"}]},
        "#/bars/0/ts: Input should have timezone",
    ),
    "before the year 1": (
        {"bars": [{**BAR, "ts": "0001-01-01T00:00:00+01:00"}]},
        "#/bars/0/ts: the time lies before the year 1",
    ),
    "after the year 9999": (
        {"bars": [{**BAR, "ts": "9999-12-31T23:59:59-01:00"}]},
        "#/bars/0/ts: the time lies before the year 1 or after the year 9999",
    ),
    "high below": (
        {"bars": [{**BAR, "high": 1.2}]},
        "at 2018-01-02T00:00:00+00:00: high is below open, close",
    ),
    "negative": ({"bars": [{**BAR, "low": -1.0}]}, "a price is not finite or not above zero"),
}


@pytest.mark.parametrize(("body", "text"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_told_what_was_expected(client: TestClient, body: Any, text: str) -> None:
    status, problem = ask(client, body)
    assert status == 422, problem
    assert text in problem["detail"]
    assert all(each["pointer"].startswith("#") and each["detail"] for each in problem["errors"])
    assert problem["errors"]


POINTERS: dict[str, tuple[Any, str]] = {
    "one row": ({"features": [1.0, 2.0]}, "#/features"),
    "a row of several": ({"features": [[0.0] * 50, [0.0] * 49]}, "#/features/1"),
    "a named row": ({"features": [{"bop": 1.0}, {"rsi": 1.0}]}, "#/features/1"),
    "interval": ({"symbol": "SPX", "interval": "1h"}, "#/interval"),
    "symbol": ({"symbol": "AAPL"}, "#/symbol"),
    "order of bars": ({"bars": [BAR, BAR]}, "#/bars/1/ts"),
    "a bar": ({"bars": [BAR, {**BAR, "ts": "2018-01-03T00:00:00Z", "high": 1.2}]}, "#/bars/1"),
}


@pytest.mark.parametrize(("body", "pointer"), POINTERS.values(), ids=POINTERS)
def test_wrong_input_is_pointed_at(client: TestClient, body: Any, pointer: str) -> None:
    _, problem = ask(client, body)
    assert problem["errors"] == [{"pointer": pointer, "detail": problem["detail"]}]


@pytest.mark.parametrize(
    "body", [{"k" * 90_000: 1}, {"features": {"k" * 90_000: 1}}, {"symbol": "S" * 90_000}]
)
def test_a_long_text_of_the_caller_is_not_sent_back(client: TestClient, body: Any) -> None:
    _, problem = ask(client, body)
    assert len(json.dumps(problem)) < 4_000


def test_times_of_bars_may_have_any_offset(client: TestClient, spx: pa.Table) -> None:
    utc = bars_of(spx.slice(spx.num_rows - 512))
    tokyo = timezone(timedelta(hours=9))
    there = [{**bar, "ts": datetime.fromisoformat(bar["ts"]).astimezone(tokyo).isoformat()} for bar in utc]
    assert predict(client, bars=there) == predict(client, bars=utc)


def test_values_at_the_edge_of_float32_are_only_clipped(client: TestClient) -> None:
    answer = predict(client, features=[[3.4e38] * 50, [-3.4e38] * 50])
    assert all(math.isfinite(value) for value in answer["members"].values())


def test_a_symbol_with_too_few_bars_is_told_how_many_and_what_fetches_them(client: TestClient) -> None:
    status, problem = ask(client, {"symbol": "IXIC"})
    assert (status, problem["title"]) == (409, "Not enough history")
    text = "The features need 512 bars, there are 511. `finsight backfill IXIC --interval 1d` fetches them."
    assert problem["detail"] == text


def test_every_wrong_field_is_listed_with_a_pointer_and_a_list_with_its_first(client: TestClient) -> None:
    _, problem = ask(client, {"features": [1.0, "a", "b"], "model_type": "arima"})
    assert [each["pointer"] for each in problem["errors"]] == ["#/features/1", "#/model_type"]


LARGE = {
    "wrong values": b'{"features": [' + b'"",' * 300_000 + b"0]}",
    "wrong rows": b'{"features": [' + b'[""],' * 180_000 + b"[0]]}",
    "wrong bars": b'{"bars": [' + b"{}," * 300_000 + b"{}]}",
    "wrong names": b'{"features": {' + b",".join(b'"%d":""' % name for name in range(80_000)) + b"}}",
    "wrong keys": b"{" + b",".join(b'"%d":""' % name for name in range(80_000)) + b"}",
    "deep": b'{"features": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_a_large_wrong_body_costs_no_more_memory_than_it_has(client: TestClient, body: bytes) -> None:
    tracemalloc.start()
    try:
        status, problem = ask(client, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert status == 422
    assert len(problem.get("errors", [])) <= 5
    assert peak < 20 * len(body)


def test_bars_out_of_order_or_from_the_future_or_too_few_are_refused(
    client: TestClient, spx: pa.Table
) -> None:
    bars = bars_of(spx.slice(spx.num_rows - 20))
    twice = {"bars": [*bars[:5], bars[4]]}
    assert "bar 5 is not later than the one before" in ask(client, twice)[1]["detail"]
    late = {**bars[-1], "ts": "2019-01-05T12:30:00Z"}  # half an hour after the replica's clock
    assert "ts is in the future" in ask(client, {"bars": [*bars, late]})[1]["detail"]
    status, problem = ask(client, {"bars": bars})
    assert (status, problem["title"]) == (409, "Not enough history")
    assert "need 512 bars, there are 20" in problem["detail"]


def test_an_unknown_calendar_is_refused(client: TestClient, spx: pa.Table) -> None:
    _, problem = ask(client, {"bars": bars_of(spx.slice(spx.num_rows - 512)), "calendar": "XXXX"})
    assert "calendar 'XXXX' is not known" in problem["detail"]
