"""The metrics page: exact names, state read at scrape time, several processes on one page."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from cluster import metrics
from cluster.metrics import StateCollector, render_page, state_family


def values(page: bytes) -> dict[str, float]:
    """Sample with its labels -> value."""
    return {
        f"{s.name}{sorted(s.labels.items())}" if s.labels else s.name: s.value
        for family in text_string_to_metric_families(page.decode())
        for s in family.samples
    }


class Seconds:
    """A monotonic clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def store(answers: list[float | Exception]) -> tuple[Callable[[], Iterable[Metric]], list[float]]:
    """A read function that gives one answer after the other, and the list of the answers given."""
    given: list[float] = []

    def read() -> Iterable[Metric]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        given.append(answer)
        return [state_family("dlq_depth", [((), answer)])]

    return read, given


def test_no_family_is_on_the_page_twice_and_none_has_a_created_series() -> None:
    metrics.gaps_found_total.labels("1m").inc()
    state = StateCollector(lambda: [state_family("dlq_depth", [((), 1.0)])])
    lines = render_page([state]).decode().splitlines()
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert not [line for line in lines if "_created{" in line]
    assert 'gaps_found_total{interval="1m"}' in "\n".join(lines)


def test_state_is_read_when_the_page_is_asked_for_at_most_once_in_five_seconds() -> None:
    clock, (read, given) = Seconds(), store([3.0, 4.0])
    state = StateCollector(read, monotonic_s=clock)
    assert given == []
    assert values(render_page([state]))["dlq_depth"] == 3.0
    clock.now = 4.9
    assert values(render_page([state]))["dlq_depth"] == 3.0
    clock.now = 5.0
    assert values(render_page([state]))["dlq_depth"] == 4.0


def test_a_failed_read_leaves_the_family_out_and_says_so() -> None:
    clock, (read, _) = Seconds(), store([3.0, ConnectionError("down"), 5.0])
    state = StateCollector(read, monotonic_s=clock)
    assert values(render_page([state]))["finsight_state_read_up"] == 1.0
    clock.now = 5.0
    page = values(render_page([state]))
    assert page["finsight_state_read_up"] == 0.0
    assert "dlq_depth" not in page
    clock.now = 10.0
    assert values(render_page([state]))["dlq_depth"] == 5.0


def test_one_failed_store_does_not_take_the_others_with_it() -> None:
    dead, _ = store([ConnectionError("down")])
    good = StateCollector(lambda: [state_family("backfill_queue_depth", [(("T0",), 7.0)])])
    page = values(render_page([StateCollector(dead), good]))
    assert page["backfill_queue_depth[('tier', 'T0')]"] == 7.0
    assert page["finsight_state_read_up"] == 0.0


def test_a_state_metric_that_is_not_declared_cannot_be_made() -> None:
    with pytest.raises(KeyError):
        state_family("queue_depth", [])


WORKER = """
import sys
from cluster import metrics
metrics.bars_written_total.labels("sample").inc(5)
metrics.provider_request_ms.observe(3.5)
metrics.provider_health_score.labels(sys.argv[1]).set(0.5)
print("counted", flush=True)
input()
"""
PAGE = "import sys; from cluster import metrics; sys.stdout.buffer.write(metrics.render_page([]))"


def test_a_page_has_the_counts_of_all_processes_of_a_node_and_the_gauges_of_those_that_live(
    tmp_path: Path,
) -> None:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(provider: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, provider]
        return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def page() -> dict[str, float]:
        command = [sys.executable, "-c", PAGE]
        return values(subprocess.run(command, env=env, check=True, capture_output=True).stdout)

    with worker("killed") as killed, worker("alive") as alive:
        for each in (killed, alive):
            assert each.stdout is not None
            assert each.stdout.readline() == b"counted\n"
        killed.kill()
        killed.wait()
        found = page()
        alive.kill()

    assert found["bars_written_total[('source', 'sample')]"] == 10.0
    assert found["provider_request_ms_sum"] == 7.0
    assert found["provider_request_ms_count"] == 2.0
    gauges = {name: value for name, value in found.items() if name.startswith("provider_health_score")}
    assert gauges == {"provider_health_score[('provider', 'alive')]": 0.5}


def test_what_a_dead_process_left_may_be_removed_by_the_page_of_another_process_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = tmp_path / f"gauge_livemostrecent_{ended.pid}.db"
    left.touch()
    removed = []

    def another_is_faster(remove: Callable[..., None]) -> Callable[..., None]:
        def after_another(path: str | Path, **options: int) -> None:
            removed.append(Path(path))
            remove(path)
            remove(path, **options)

        return after_another

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for name in ("remove", "unlink"):
        monkeypatch.setattr(os, name, another_is_faster(getattr(os, name)))

    assert b"finsight_state_read_up 1.0" in render_page([])
    assert removed == [left]
    assert not left.exists()
