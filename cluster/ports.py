"""TCP ports of this machine: find a free one, and say who holds a taken one."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

import psutil

from cluster.errors import PortTaken


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it a port that a stopped server has just left counts as taken for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that is free at this moment; the kernel does not hand it out again soon."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def free_range(count: int) -> range:
    """`count` neighbouring ports that are free at this moment, below those that the kernel hands out."""
    for _ in range(100):
        start = random.randrange(20_000, 32_000 - count)  # noqa: S311 (nothing secret about it)
        found = range(start, start + count)
        if all(is_free(port) for port in found):
            return found
    raise PortTaken(f"No {count} neighbouring ports between 20000 and 32000 are free.")


def listeners(port: int) -> list[int | None]:
    """The ids of the processes that listen on `port`; None for one that the system does not let us see."""
    return [
        connection.pid
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
    ]


def holder(port: int) -> str:
    """Who listens on `port`, as "name (pid N)"; says so when the system does not let us see it."""
    pid = next(filter(None, listeners(port)), None)
    if pid is None:
        return "a process of another user"
    try:
        process = psutil.Process(pid)
        return f"{process.name()} (pid {pid}, in {process.cwd()})"
    except psutil.Error:
        return f"pid {pid}"


def require_free(port: int, name: str, setting: str, own: Collection[int] = ()) -> None:
    """Raise `PortTaken` when something already listens on `port`, unless only the processes `own` do.

    `name` is what wanted the port, `setting` the environment variable that moves it.
    """
    if is_free(port) or is_held_by(own, port):
        return
    raise PortTaken(
        f"Port {port} ({name}) is taken by {holder(port)}. Stop it, or choose another port: "
        f"{setting}={free_port()}, or move all ports at once with FINSIGHT_PORT_OFFSET=100."
    )


def is_held_by(own: Collection[int | None], port: int) -> bool:
    """Whether somebody listens on `port`, and nobody but processes of these ids (None: one we cannot see)."""
    pids = listeners(port)
    return bool(pids) and all(pid in own for pid in pids)
