"""Memory of all processes of an idle instance: `python -m benchmarks.idle_memory`.

PSS counts a page that n processes share as 1/n in each, so the sum is what the machine really gives.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.instance import finsight, fresh_home
from benchmarks.report import report
from cluster.local.instance import Instance

GOAL_GB = 3.0
IDLE_S = 20.0
PARTS = {
    "postgres": "PostgreSQL",
    "valkey-server": "Valkey",
    "mlflow": "MLflow",
    "ServeReplica": "replica",
    "GatewayActor": "gateways",
    "BackfillActor": "backfill worker",
    "CollectorActor": "collector",
    "ServeController": "Serve",
    "Proxy": "Serve",
    "haproxy": "Serve",
}
"""Words in the command line of a process or of what started it, and the part that it belongs to."""


def main() -> None:
    """Start, wait until it is idle, and print the line."""
    with fresh_home() as environment:
        finsight(environment, "up")
        time.sleep(IDLE_S)
        used_gb = defaultdict[str, float](float)
        for process in processes(Path(environment["FINSIGHT_HOME"])):
            used_gb[kind(process)] += process.memory_full_info().pss / 1e9
    total_gb = sum(used_gb.values())
    parts = ", ".join(f"{name} {gb:.2f}" for name, gb in sorted(used_gb.items(), key=lambda each: -each[1]))
    note = f"bound, not a peer; PSS {IDLE_S:g} s after a first start; GB: {parts}"
    report("idle_memory", total_gb, GOAL_GB, "GB", digits=2, better="lower", note=note)


def processes(home: Path) -> Iterator[psutil.Process]:
    """Every process of the instance, the embedded servers too."""
    yield from Instance(home).processes()
    for server in ("postgres/data/postmaster.pid", "valkey/valkey.pid"):
        main_process = psutil.Process(int((home / server).read_text().split()[0]))
        yield main_process
        yield from main_process.children(recursive=True)


def kind(process: psutil.Process) -> str:
    """What a process belongs to."""
    family = [process, *process.parents()]
    names = " ".join(f"{each.name()} {' '.join(each.cmdline())}" for each in family)
    return next((part for title, part in PARTS.items() if title in names), "Ray")


if __name__ == "__main__":
    main()
