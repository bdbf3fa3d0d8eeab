"""Judge a registered version on rows it was not trained on, and make it the champion if it earns it.

The rule of `--promote auto`: a version is promoted when there is no champion that this program can serve; or
when, on the same rows, later than what either was trained or calibrated on, neither its ensemble's RMSE nor
the Winkler score of its interval is worse than the champion's, and one of them is better.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import BundleRejected, ModelNotFound, NotEnoughHistory
from cluster.market.intervals import Interval
from cluster.settings import Settings
from cluster.storage.database import Database
from jobs import arguments, history, protocol
from jobs.protocol import Progress

if TYPE_CHECKING:
    from training.datasets.assemble import Dataset
    from training.predictor import Predictor

RULE = (
    "promote when there is no champion, or when on the same unseen rows neither RMSE nor Winkler score of "
    "the ensemble is worse than the champion's and one of them is better"
)
SCORES = ("rmse", "winkler")
"""Scores of the ensemble that decide; less is better."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to promote, and why."""

    promote: bool
    why: str


def judge(candidate: Mapping[str, Any], champion: Mapping[str, Any]) -> Verdict:
    """Compare two reports (`training.evaluation.report.build`) on the same rows by the rule."""
    new, old = ({name: one["models"]["ensemble"][name] for name in SCORES} for one in (candidate, champion))
    facts = ", ".join(f"{name} {new[name]:.6g} against {old[name]:.6g}" for name in SCORES)
    rows = f"on {candidate['rows']} rows since {candidate['start']}"
    worse = [name for name in SCORES if new[name] > old[name]]
    if worse:
        return Verdict(promote=False, why=f"worse than the champion in {' and '.join(worse)} {rows}: {facts}")
    if new == old:
        return Verdict(promote=False, why=f"not better than the champion {rows}: {facts}")
    return Verdict(promote=True, why=f"better than the champion {rows}: {facts}")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options in `words`, or on the command line; leaves with status 2 when they are wrong."""
    made = arguments.parser("evaluate", f"Judge a registered model version. Rule: {RULE}.")
    made.add_argument("--name", help="registered model; default: FINSIGHT_MODEL_NAME, or finsight-INTERVAL")
    made.add_argument(
        "--version", type=_version, default="latest", metavar="latest|N", help="default: latest"
    )
    made.add_argument("--promote", choices=("auto", "always", "never"), default="auto", help="default: auto")
    return made.parse_args(words)


def _version(text: str) -> str:
    if text != "latest" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither `latest` nor a version number")
    return text


def work(options: argparse.Namespace, settings: Settings, progress: Progress) -> Mapping[str, Any]:
    """Do what the command line asks for."""
    from training import registry
    from training.evaluate import evaluate
    from training.evaluation import report

    uri = settings.require_mlflow_tracking_uri()
    name = options.name or history.model_name(settings.model_name, options.interval)
    progress(0.0, f"loading {name}")
    version = _latest(name, uri) if options.version == "latest" else options.version
    cache = settings.home / "models"
    candidate = registry.load(name, tracking_uri=uri, alias_or_version=version, cache_dir=cache)
    at_first = registry.champion(name, uri)
    champion, unusable = None, ""
    if at_first not in {None, version}:
        try:
            champion = registry.load(name, tracking_uri=uri, alias_or_version=at_first, cache_dir=cache)
        except BundleRejected as error:
            unusable = f"champion {at_first} cannot be served: {error}"
    progress(0.4, "reading bars")
    dataset = _dataset(settings.require_database_url(), candidate)
    progress(0.6, f"testing {name} version {version}")
    card, *others = evaluate([candidate, champion] if champion else [candidate], dataset)
    other = others[0] if others else None
    sys.stderr.write(report.as_text(card) + "\n")
    verdict = _verdict(options.promote, card, other, unusable, is_champion=at_first == version)
    if verdict.promote:
        registry.promote(name, version, uri)
    progress(1.0, verdict.why)
    return {
        "name": name,
        "version": version,
        "champion_before": at_first,
        "promoted": verdict.promote,
        "why": verdict.why,
        "rule": RULE,
        "report": card,
        "champion_report": other,
    }


def _verdict(
    promote: str,
    card: Mapping[str, Any],
    other: Mapping[str, Any] | None,
    unusable: str,
    *,
    is_champion: bool,
) -> Verdict:
    if is_champion:
        return Verdict(promote=False, why="it is the champion already")
    if promote != "auto":
        return Verdict(promote=promote == "always", why=f"asked for with --promote {promote}")
    if other is None:
        return Verdict(promote=True, why=unusable or "there was no champion")
    return judge(card, other)


def _latest(name: str, uri: str) -> str:
    from training import registry

    versions = registry.versions(name, uri)
    if not versions:
        raise ModelNotFound(f"model {name} has no version; `finsight train` makes one")
    return versions[0].version


def _dataset(dsn: str, model: Predictor) -> Dataset:
    """All stored bars of the symbols it was trained on; the features of the test need those before it too."""
    from training.datasets.assemble import from_bars

    interval = Interval(model.interval)
    symbols = [str(symbol) for symbol in model.manifest["symbols"]]

    async def read() -> dict[str, Any]:
        database = await Database.open(dsn, max_size=2)
        try:
            return await history.final_bars(database, symbols, interval)
        finally:
            await database.close()

    bars = asyncio.run(read())
    if not bars:
        raise NotEnoughHistory(
            f"no {interval} bars of {', '.join(symbols)} are stored; run `finsight ingest`"
        )
    return from_bars(bars, interval, model.horizon)


if __name__ == "__main__":
    protocol.run(parse(), work)
