"""Run a server as the right user, in a session of its own, and end it for sure."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import psutil

from cluster.errors import ConfigError

SERVER_UID = 65_534
"""The user `nobody`: PostgreSQL refuses to run as root."""


def as_server_user(command: Sequence[str]) -> list[str]:
    """`command`, to be run as `SERVER_UID` when we are root, and unchanged otherwise.

    The one capability it keeps lets it pass through parent folders that only root may enter (a checkout
    under `/root`, say); it cannot write anything that `nobody` could not.
    """
    if os.geteuid() != 0:
        return list(command)
    return [
        "setpriv",
        f"--reuid={SERVER_UID}",
        f"--regid={SERVER_UID}",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
        *command,
    ]


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


def alive(pid: int, executable: str) -> bool:
    """Whether process `pid` lives and still is `executable`, and not somebody who got its number later."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and executable in process.name()
    except psutil.NoSuchProcess:
        return False


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
