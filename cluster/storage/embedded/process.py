"""Run a server as the right user, in a session of its own, and end it for sure."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import psutil

from cluster.errors import ConfigError

SERVER_UID = 65_534
"""The user `nobody`: PostgreSQL refuses to run as root."""

LOG_BYTES = 16 * 1024 * 1024
"""A log that has grown longer is put aside at the next start."""

_DAC_READ_SEARCH = 2  # its number, as in linux/capability.h


def as_server_user(command: Sequence[str]) -> list[str]:
    """`command`, to be run as `SERVER_UID` when we are root, and unchanged otherwise.

    The one capability it keeps lets it pass through parent folders that only root may enter (a checkout
    under `/root`, say); it cannot write anything that `nobody` could not. A root that does not have it, as in
    most containers, cannot hand it on.
    """
    if os.geteuid() != 0:
        return list(command)
    user = ["setpriv", f"--reuid={SERVER_UID}", f"--regid={SERVER_UID}", "--clear-groups"]
    passing = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*user, *(passing if _passes_closed_folders() else []), *command]


def _passes_closed_folders() -> bool:
    status = Path("/proc/self/status").read_text()
    permitted = int(status.partition("CapPrm:")[2].split()[0], 16)
    return bool(permitted >> _DAC_READ_SEARCH & 1)


def own_by_server_user(path: Path) -> None:
    """Give `path` to the user that the server will run as."""
    if os.geteuid() == 0:
        os.chown(path, SERVER_UID, SERVER_UID)


def installed(package: str) -> Path:
    """Folder of an installed package, found without running the package's own code."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ConfigError(f"The package {package} is not installed. Run `make setup`.")
    return Path(found.origin).parent


def secret(path: Path) -> str:
    """The secret kept in `path`, made on the first call; readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(24))
        # A link refuses to replace: whoever comes first wins, also against another process.
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text()


def launch(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that outlives us, its output appended to `log`, with `environment` on top of ours."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,  # Ctrl-C in our terminal must not reach it
            env={**os.environ, **(environment or {})},
        )


def last_lines(log: Path, count: int = 3) -> str:
    """The end of a log as one line."""
    if not log.exists():
        return "(no output)"
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-count:])


def runs(pid: int, executable: str, argument: str) -> bool:
    """Whether process `pid` lives and is the `executable` that was started with this `argument`.

    After a restart of the machine the number may well belong to the same program of another folder.
    """
    try:
        process = psutil.Process(pid)
        return executable in process.name() and argument in process.cmdline()
    except psutil.Error:  # a zombie has no command line
        return False


def works_in(folder: Path) -> bool:
    """Whether any process that we may look at has `folder` as its working folder."""
    return any(process.info["cwd"] == str(folder) for process in psutil.process_iter(["cwd"]))


def end(pid: int, timeout_s: float = 15.0) -> None:
    """Ask process `pid` to stop, and kill it when it has not after `timeout_s`."""
    try:
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(timeout_s)
    except psutil.NoSuchProcess:
        return
