"""FinSight's own metrics, each declared once, and the page that `GET /metrics` answers.

Process metrics (counters, histograms) live in the objects below. When `PROMETHEUS_MULTIPROC_DIR` is in the
environment before this module is imported, they go to files that all processes of the node share, and outlive
their process.
State metrics (queue depth, lag) are read from the stores at scrape time by a `StateCollector`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

REGISTRY = CollectorRegistry()
"""The metrics of this process; not the library's default, so that nothing undocumented gets in."""

_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY, multiprocess_mode="livemostrecent")


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)


provider_selected_total = _counter("provider_selected_total", "Calls made to a provider.", "provider")
provider_errors_total = _counter(
    "provider_errors_total", "Calls to a provider that gave no bars, by kind.", "provider", "kind"
)
source_changes_total = _counter(
    "source_changes_total", "Sessions that go on with bars of another provider.", "before", "after"
)
provider_health_score = _gauge("provider_health_score", "0 (nothing works) to 1 (all is well).", "provider")
provider_request_ms = _histogram("provider_request_ms", "Duration of calls to providers in ms.", _MS)

bars_written_total = _counter("bars_written_total", "Bars inserted or revised.", "source")
bars_corrected_total = _counter(
    "bars_corrected_total", "Bars whose values changed after they had been final.", "source"
)
bars_late_total = _counter(
    "bars_late_total", "Final bars collected after a later bar of their symbol.", "source"
)
collection_sweeps_total = _counter(
    "collection_sweeps_total",
    "Looks of the collectors for new bars: done, failed, or done by another cluster; `alone` without Redis.",
    "tier",
    "interval",
    "outcome",
)
gaps_found_total = _counter(
    "gaps_found_total", "Ranges of missing bars that were found, each once.", "interval"
)
write_batch_ms = _histogram("write_batch_ms", "Duration of one bulk write of bars in ms.", _MS)

backfill_jobs_processed_total = _counter(
    "backfill_jobs_processed_total", "Backfill attempts that ended, by outcome.", "tier", "outcome"
)
backfill_database_failures_total = _counter(
    "backfill_database_failures_total", "Times that a backfill worker met a database in trouble."
)

duty_failures_total = _counter("duty_failures_total", "Rounds of a recurring duty that failed.", "duty")

http_requests_total = _counter("http_requests_total", "HTTP answers.", "route", "method", "status")
http_request_duration_seconds = _histogram(
    "http_request_duration_seconds", "Time to answer an HTTP request.", _SECONDS, "route", "method"
)

prediction_latency_seconds = _histogram(
    "prediction_latency_seconds", "Time to compute one prediction request.", _SECONDS, "model_type"
)
predictions_total = _counter("predictions_total", "Predictions served.", "model_type")
model_rejected_total = _counter("model_rejected_total", "Promoted versions whose files were refused.")
model_info = _gauge("model_info", "1 for the model version that is served.", "name", "version", "alias")

STATE_METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dlq_depth": ("Backfill jobs in the dead letter queue.", ()),
    "backfill_queue_depth": ("Backfill jobs that wait.", ("tier",)),
    "backfill_oldest_age_seconds": ("Age of the oldest backfill job that waits.", ("tier",)),
    "ingestion_lag_seconds": (
        "From the close of a bar to its commit, 99th percentile over symbols; grows while no look comes.",
        ("tier", "interval"),
    ),
    "slo_gap_violation_rate": (
        "Share of the bars due in the last day (1d: 30 days) that are missing in gaps of over two bars.",
        ("tier", "interval"),
    ),
    "gaps_open": ("Ranges of missing bars by their cause.", ("tier", "interval", "cause")),
    "gap_scan_age_seconds": ("Time up to which bars were looked for, before now.", ("interval",)),
    "data_freshness_seconds": (
        "Age of the newest bar, in seconds since its open.",
        ("symbol_tier", "interval"),
    ),
}
"""Name -> help text and labels of the metrics that are read at scrape time."""


def state_family(name: str, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """One of `STATE_METRICS` with its values, each with its label values in the declared order."""
    text, labels = STATE_METRICS[name]
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


class StateCollector(Collector):
    """Reads state metrics when the page is asked for, at most once in `cache_s` seconds.

    A read that fails leaves its families out and turns `up` false: an old number is never shown as new.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Metric]],
        *,
        cache_s: float = 5.0,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._cache_s = cache_s
        self._monotonic_s = monotonic_s
        self._families: list[Metric] = []
        self._valid_until_s = float("-inf")
        self.up = False
        """Whether the last read worked."""

    def collect(self) -> Iterable[Metric]:
        """The families of the last read, or of a new one when that is too old."""
        if self._monotonic_s() >= self._valid_until_s:
            self._refresh()
        return self._families

    def _refresh(self) -> None:
        try:
            self._families, self.up = list(self._read()), True
        except Exception:  # the page must come out whatever the store does
            structlog.get_logger(__name__).warning("state_metrics_failed", exc_info=True)
            self._families, self.up = [], False
        self._valid_until_s = self._monotonic_s() + self._cache_s


class _ThisProcess(Collector):
    def collect(self) -> Iterable[Metric]:
        """The metrics without their times of creation, which the shared files do not have either."""
        for family in REGISTRY.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _StateReadUp(Collector):
    def __init__(self, states: list[StateCollector]) -> None:
        self._states = states

    def collect(self) -> Iterable[Metric]:
        up = all(state.up for state in self._states)
        yield GaugeMetricFamily(
            "finsight_state_read_up", "1 when all state metrics could be read.", float(up)
        )


def _forget_dead_processes(folder: str) -> None:
    """Drop what processes that ended have left of their live gauges; their counters stay in the totals."""
    for file in Path(folder).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not psutil.pid_exists(pid):
            file.unlink(missing_ok=True)  # the page of another process may be faster


def render_page(state_collectors: Iterable[StateCollector] = ()) -> bytes:
    """The Prometheus text page: process metrics of the whole node, then state metrics.

    Counters and histograms are sums over all processes there have been, gauges those of processes that live.
    """
    page, states = CollectorRegistry(), list(state_collectors)
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        _forget_dead_processes(folder)
        MultiProcessCollector(page)  # type: ignore[no-untyped-call] # registers itself
    else:
        page.register(_ThisProcess())
    for state in states:
        page.register(state)
    page.register(_StateReadUp(states))  # last, so that it sees how the reads of this page went
    return generate_latest(page)
