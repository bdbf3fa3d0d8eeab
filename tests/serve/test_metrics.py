from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from cluster.settings import Settings
from tests.serve.conftest import started

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(client: TestClient) -> Samples:
    """The samples of the page; a family that comes twice fails."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, metric: str, /, **labels: str) -> float:
    return samples.get((metric, frozenset(labels.items())), 0.0)


def test_requests_are_counted_by_the_template_of_their_route(client: TestClient) -> None:
    labels = {"route": "/models/{name}", "method": "GET", "status": "404"}
    before = value(scrape(client), "http_requests_total", **labels)
    client.get("/models/first")
    client.get("/models/second")
    after = scrape(client)

    assert value(after, "http_requests_total", **labels) == before + 2
    assert value(after, "http_request_duration_seconds_count", route="/models/{name}", method="GET") >= 2


def test_paths_that_are_not_served_make_no_series_of_their_own(client: TestClient) -> None:
    for number in range(3):
        client.get(f"/unknown/{number}")
    page = scrape(client)
    routes = {dict(labels).get("route", "") for _, labels in page}
    assert not any("unknown" in route for route in routes)
    assert value(page, "http_requests_total", route="other", method="GET", status="404") >= 3


def test_predictions_are_counted_and_timed_by_model_type(client: TestClient) -> None:
    before = scrape(client)
    client.post("/predict", json={"features": [0.1] * 50, "model_type": "lstm"})
    client.post("/predict", json={"features": [0.1], "model_type": "lstm"})  # refused, so not a prediction
    after = scrape(client)

    for name in ("predictions_total", "prediction_latency_seconds_count"):
        assert value(after, name, model_type="lstm") == value(before, name, model_type="lstm") + 1


def test_the_served_version_is_told(client: TestClient) -> None:
    assert value(scrape(client), "model_info", name="finsight-1d", version="1", alias="champion") == 1


def test_state_is_read_from_the_database(client: TestClient) -> None:
    page = scrape(client)
    age_s = (datetime.now(UTC) - datetime(2015, 1, 13, tzinfo=UTC)).total_seconds()

    assert value(page, "finsight_state_read_up") == 1
    assert ("backfill_queue_depth", frozenset({("tier", "T0")})) in page
    assert ("backfill_oldest_age_seconds", frozenset({("tier", "T3")})) in page
    assert ("dlq_depth", frozenset()) in page
    # IXIC is the stalest symbol of the tier: its 511 bars end at the start of 2016.
    freshness = value(page, "data_freshness_seconds", symbol_tier="T0", interval="1d")
    assert 0 < freshness < age_s
    assert freshness > (datetime.now(UTC) - datetime(2016, 2, 1, tzinfo=UTC)).total_seconds()


def test_without_a_database_the_page_comes_without_state(settings: Settings) -> None:
    dead = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:9/none"})
    with started(dead) as client:
        page = scrape(client)
    assert value(page, "finsight_state_read_up") == 0
    assert not any(name in ("dlq_depth", "data_freshness_seconds") for name, _ in page)
    assert math.isfinite(value(page, "http_requests_total", route="/metrics", method="GET", status="200"))


@pytest.mark.parametrize("symbol", ['A"} 1\nfake{x="', "A\\"])
def test_no_input_gets_into_a_label(client: TestClient, symbol: str) -> None:
    client.post("/predict", json={"symbol": symbol})
    assert not any("fake" in name for name, _ in scrape(client))
