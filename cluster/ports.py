"""TCP ports of this machine: find a free one, and say who holds a taken one."""

from __future__ import annotations

import random
import socket

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


def holder(port: int) -> str:
    """Who listens on `port`, as "name (pid N)"; says so when the system does not let us see it."""
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or connection.laddr.port != port:
            continue
        if connection.pid:
            try:
                process = psutil.Process(connection.pid)
                return f"{process.name()} (pid {process.pid}, in {process.cwd()})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return "a process of another user"


def require_free(port: int, name: str, setting: str) -> None:
    """Raise `PortTaken` when something already listens on `port`.

    `name` is what wanted the port, `setting` the environment variable that moves it.
    """
    if not is_free(port):
        raise PortTaken(
            f"Port {port} ({name}) is taken by {holder(port)}. Stop it, or choose another port: "
            f"{setting}={free_port()}, or move all ports at once with FINSIGHT_PORT_OFFSET=100."
        )
