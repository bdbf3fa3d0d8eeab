"""The metrics as Markdown, out of `cluster.metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from cluster import metrics
from tests.docs.pages import table


def process_metrics() -> str:
    """Counters, gauges and histograms of the processes."""
    rows = []
    for name, metric in sorted(vars(metrics).items()):
        if isinstance(metric, Counter | Gauge | Histogram):
            kind = type(metric).__name__.lower()
            rows.append([f"`{name}`", kind, _labels(metric._labelnames), metric._documentation])
    return table(["Name", "Kind", "Labels", "Meaning"], rows)


def state_metrics() -> str:
    """Gauges that are read from the database when the page is asked for."""
    rows = [
        [f"`{name}`", "gauge", _labels(labels), text]
        for name, (text, labels) in sorted(metrics.STATE_METRICS.items())
    ]
    return table(["Name", "Kind", "Labels", "Meaning"], rows)


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
