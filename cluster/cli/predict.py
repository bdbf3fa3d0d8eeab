"""`finsight predict`: one forecast of the running system."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from cluster.cli import terminal
from cluster.cli.arguments import IntervalOption, JsonOption, SymbolArgument
from cluster.market.intervals import Interval


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(predict)


def predict(
    symbol: SymbolArgument,
    interval: IntervalOption = Interval.D1,
    model_type: Annotated[
        Literal["ensemble", "xgboost", "lstm", "transformer"],
        typer.Option("--model-type", help="The whole ensemble, or one member alone."),
    ] = "ensemble",
    *,
    as_json: JsonOption = False,
) -> None:
    """Forecast the next bar of SYMBOL, with the interval that should hold the outcome."""
    from cluster import settings
    from cluster.cli.api import Api

    wanted = {"symbol": symbol, "interval": interval, "model_type": model_type, "return_confidence": True}
    with Api(settings.load()) as api:
        answer = api.post("/predict", wanted)
    terminal.emit(answer, as_json=as_json, text=terminal.facts(told(answer)))


def told(answer: Mapping[str, Any]) -> dict[str, object]:
    """The API's answer for a symbol in words."""
    coverage, target = answer["coverage"], answer.get("target_ts")
    # `confidence` is that of the sign of `mean`
    up = answer["confidence"] if answer["mean"] >= 0 else 1 - answer["confidence"]
    lines: dict[str, object] = {
        "symbol": f"{answer['symbol']}, {answer['interval']} bars until {terminal.when(answer['as_of'])}",
        "forecast": f"{_percent(answer['mean'])} for the bar of {terminal.when(target)}",
        f"{coverage:.0%} interval": f"{_percent(answer['lower'])} to {_percent(answer['upper'])}",
        "price": _prices(answer["price"], answer["last_close"]),
        "probability": f"up {up:.0%}, down {1 - up:.0%}",
        "model": f"{answer['model']['name']} version {answer['model']['version']}, {answer['model_type']}",
    }
    members = {f"  {name}": _percent(value) for name, value in answer["members"].items()}
    return lines | (members if len(members) > 1 else {})


def _prices(price: Mapping[str, float], last_close: float) -> str:
    return f"{price['mean']:.2f} ({price['lower']:.2f} to {price['upper']:.2f}), last close {last_close:.2f}"


def _percent(log_return: float) -> str:
    """A logarithmic return as the change of the price in percent."""
    return f"{math.expm1(log_return):+.2%}"
