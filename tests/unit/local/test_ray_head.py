"""Ports that were chosen for Ray, and who has them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import ports
from cluster.errors import PortTaken
from cluster.local.instance import MARK, Instance, write_private
from cluster.local.ray_head import RayHead
from cluster.ports import free_port, require_free
from cluster.settings import load

SERVES = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
input()
"""


@contextmanager
def listener(**environment: str) -> Iterator[tuple[int, int]]:
    """A process with `environment` that listens: its id and the port."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVES],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


def test_a_chosen_port_is_lost_to_a_process_of_others_and_not_to_one_of_ours(
    tmp_path: Path,
) -> None:
    instance = Instance(tmp_path)
    instance.run.mkdir()
    head = RayHead(instance, load(instance=False, environ={}, home=tmp_path))
    with listener() as (_, theirs), listener(**{MARK: instance.mark}) as (_, ours):
        chosen = {"control": theirs, "proxy": ours, "nobody's": free_port()}
        write_private(instance.run / "ray.json", {"chosen": chosen})

        assert head.lost() == {"control": theirs}


def test_a_chosen_port_whose_listener_the_system_hides_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance(tmp_path)
    instance.run.mkdir()
    head = RayHead(instance, load(instance=False, environ={}, home=tmp_path))
    with listener() as (pid, port):
        write_private(instance.run / "ray.json", {"chosen": {"control": port}})
        for pids, lost in (([None], {}), ([None, pid], {"control": port})):
            monkeypatch.setattr(ports, "listeners", lambda _, pids=pids: pids)
            assert head.lost() == lost


def test_a_port_that_only_its_owner_listens_on_is_free_for_the_owner() -> None:
    with listener() as (pid, port):
        require_free(port, "the HTTP API", "FINSIGHT_API_PORT", {pid})
        with pytest.raises(PortTaken, match=rf"Port {port} \(the HTTP API\) is taken by .* \(pid {pid}, "):
            require_free(port, "the HTTP API", "FINSIGHT_API_PORT", {pid + 1})


def test_a_port_that_a_connection_leaves_from_is_not_free_either() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        with pytest.raises(PortTaken, match="FINSIGHT_API_PORT="):
            require_free(client.getsockname()[1], "the HTTP API", "FINSIGHT_API_PORT")
