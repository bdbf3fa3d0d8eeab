"""GET /stats/providers when gateways fail; the numbers of one that answers are tested on Ray."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cluster.errors import NotRunning, ProviderDown
from cluster.providers.stats import ProviderStats
from cluster.settings import Settings
from serve_apps import on_ray
from tests.serve.conftest import started

pytestmark = pytest.mark.postgres

NOW = "2019-01-05T12:00:00Z"


async def answered(provider: str, timeout_s: float) -> ProviderStats:
    """What three gateways say within `timeout_s`: one is well, one hangs, one has gone."""
    if provider == "synthetic":
        raise ProviderDown(f"the gateway did not answer within {timeout_s:g} s; api_key=very-secret")
    if provider == "yahoo":
        raise NotRunning("the gateway of provider 'yahoo' is not running; start it with: finsight up")
    return ProviderStats(provider, "CLOSED", 1.0, None, None, 0.0, [], None, None, None)


def on_a_cluster(client: TestClient) -> TestClient:
    assert isinstance(client.app, FastAPI)
    client.app.state.services.on_ray = True
    return client


def test_a_gateway_that_is_away_hides_no_other(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "provider_stats", answered)
    three = settings.model_copy(update={"providers": {"yahoo": {}, "synthetic": {}, "sample": {}}})
    with started(three) as client:
        answer = on_a_cluster(client).get("/stats/providers")
    assert answer.status_code == 200, answer.text
    told = {each["provider"]: each for each in answer.json()["items"]}
    assert list(told) == ["sample", "synthetic", "yahoo"]
    assert (told["sample"]["state"], told["sample"]["health_score"]) == ("CLOSED", 1.0)
    assert [told[name]["state"] for name in ("synthetic", "yahoo")] == ["OPEN", "OPEN"]
    assert [told[name]["health_score"] for name in ("synthetic", "yahoo")] == [0.0, 0.0]
    assert told["synthetic"]["last_error"] == "the gateway did not answer within 2 s; api_key=***"
    assert (told["yahoo"]["last_error_at"], "finsight up" in told["yahoo"]["last_error"]) == (NOW, True)
