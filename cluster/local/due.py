"""What has not been done yet, derived from what is stored: so an interrupted start goes on where it was."""

from __future__ import annotations

from typing import Any

import httpx

from cluster.errors import NotRunning
from cluster.settings import hide_password
from cluster.storage.database import Database

FEATURE_BARS = 512
"""What `training.features` needs of a symbol (a test holds the two equal)."""

_NO_HISTORY = """
SELECT NOT EXISTS (SELECT 1 FROM candles_daily JOIN symbol_universe USING (symbol) WHERE active)
    OR EXISTS (SELECT 1 FROM backfill_jobs WHERE state IN ('ready', 'leased') AND interval = '1d')
"""
_NO_FEATURES = """
SELECT EXISTS (
    SELECT 1
    FROM symbol_universe
    CROSS JOIN LATERAL (
        SELECT count(*) AS bars, max(ts) AS last FROM candles_daily WHERE symbol = symbol_universe.symbol
    ) AS stored
    WHERE active AND bars >= $1 AND last > COALESCE(
        (SELECT max(timestamp) FROM feature_engineered_data AS f
         WHERE f.symbol = symbol_universe.symbol AND f.interval = '1d'), '-infinity')
)
"""
_PREDICTABLE = """
SELECT symbol
FROM symbol_universe
JOIN (SELECT symbol, count(*) AS bars FROM candles_daily GROUP BY symbol) AS stored USING (symbol)
WHERE active AND bars >= $1
ORDER BY tier, bars DESC, symbol
LIMIT 1
"""


async def history(database: Database) -> bool:
    """Whether daily bars are still to be loaded."""
    return bool(await _value(database, _NO_HISTORY))


async def features(database: Database) -> bool:
    """Whether a symbol with enough daily bars has newer bars than features."""
    return bool(await _value(database, _NO_FEATURES, FEATURE_BARS))


async def predictable(database: Database) -> str | None:
    """A symbol with enough daily bars for a prediction; None when there is none."""
    symbol: str | None = await _value(database, _PREDICTABLE, FEATURE_BARS)
    return symbol


def registered(mlflow_uri: str, model: str) -> tuple[bool, bool]:
    """Whether any version of `model` is registered, and whether one is the champion.

    NotRunning when MLflow gives no answer.
    """
    question = f"{mlflow_uri}/api/2.0/mlflow/registered-models/get"
    try:
        answer = httpx.get(question, params={"name": model}, timeout=60, trust_env=False)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False, False
        found: dict[str, Any] = answer.raise_for_status().json()["registered_model"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise NotRunning(
            f"MLflow at {hide_password(mlflow_uri)} does not answer as it should: {error}"
        ) from error
    aliases = {alias["alias"] for alias in found.get("aliases", [])}
    return bool(found.get("latest_versions")), "champion" in aliases


async def _value(database: Database, query: str, *arguments: object) -> Any:
    async with database.connection() as connection:
        return await connection.fetchval(query, *arguments)
