"""What belongs to one embedded instance: its folders, its secrets, its environment and its processes.

The home folder is the instance: whoever knows it finds everything else.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.errors import ConfigError
from cluster.settings import endpoints_file
from cluster.storage.embedded.process import secret

MARK = "FINSIGHT_INSTANCE"
"""Environment variable that every process of an instance carries, so that none is overlooked."""

TEMPORARY = Path("/tmp")  # noqa: S108 - what lies there is closed to others
"""Not TMPDIR: every shell of the user must find the same, and it must be short."""


@dataclass(frozen=True)
class Instance:
    """The instance of one home folder; making the object touches nothing."""

    home: Path

    @property
    def mark(self) -> str:
        """Eight hexadecimal digits that stand for this home folder and this user."""
        return hashlib.sha256(f"{os.geteuid()} {self.home}".encode()).hexdigest()[:8]

    @property
    def run(self) -> Path:
        """What only matters while the instance runs; closed to other users."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """Output of the background processes."""
        return self.home / "logs"

    @property
    def metrics(self) -> Path:
        """Files that the processes of this node count in."""
        return self.run / "metrics"

    @property
    def scratch(self) -> Path:
        """A folder with a short path, because Unix socket paths end at 107 characters."""
        return TEMPORARY / f"fs-{self.mark}"

    @property
    def endpoints(self) -> Path:
        """See `cluster.settings.Settings.endpoints_file`."""
        return endpoints_file(self.home)

    def prepare(self) -> None:
        """Make the folders. ConfigError when one cannot be made, or belongs to another user."""
        try:
            self._require_own()
            for folder in (self.run, self.logs, self.metrics, self.scratch):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(
                f"{error.filename} cannot be used: {error.strerror}. Choose another folder by FINSIGHT_HOME."
            ) from error
        found = self.scratch.lstat()
        if self.scratch.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError(f"{self.scratch} belongs to somebody else or is open to others. Remove it.")

    def _require_own(self) -> None:
        if self.run.exists() and (owner := self.run.stat().st_uid) != os.geteuid():
            raise ConfigError(
                f"The FinSight in {self.home} belongs to user {_user_name(owner)}. Run this as that user, or "
                "choose another folder by FINSIGHT_HOME."
            )

    def environment(self) -> dict[str, str]:
        """What every process of the instance has in its environment."""
        return {
            MARK: self.mark,
            "FINSIGHT_HOME": str(self.home),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.ray_token_path),
            "RAY_AUTH_TOKEN": "",  # one for another cluster would go before the path
            "RAY_USAGE_STATS_ENABLED": "0",
            # Despite its name this has Ray keep to 127.0.0.1 on Linux too, as it does on other systems: no
            # port of it is open to the network, and nothing breaks when a laptop changes its network.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def work_environment(self) -> dict[str, str]:
        """For actors, replicas and jobs. Ray's own processes must not have it: they would count there too."""
        return {"PROMETHEUS_MULTIPROC_DIR": str(self.metrics)}

    @property
    def ray_token_path(self) -> Path:
        """The file with the token that Ray's dashboard and ports ask for."""
        return self.run / "ray-token"

    def ray_token(self) -> str:
        """Ray's token, made on the first call."""
        return secret(self.ray_token_path)

    @property
    def admin_key_path(self) -> Path:
        """The file with the API's admin key; it outlives the instance."""
        return self.home / "admin-key"

    def admin_key(self) -> str:
        """The API's admin key, made on the first call and kept."""
        return secret(self.admin_key_path)

    def write_endpoints(self, values: Mapping[str, Any]) -> None:
        """Tell other processes how the instance is reached; for its owner only, never half-written."""
        write_private(self.endpoints, values)

    def processes(self) -> Iterator[psutil.Process]:
        """Every living process that carries the mark, and all of its session; but not this one.

        Some programs overwrite their environment when they set their title (Ray's dashboard does); their
        session tells where they belong.
        """
        own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        marked, sessions = [], set()
        others = []
        for process in psutil.process_iter():
            if process.pid in own:
                continue
            if self._carries_mark(process):
                marked.append(process)
                sessions.add(session_of(process))
            else:
                others.append(process)
        yield from marked
        sessions -= {session_of(psutil.Process()), None}
        yield from (process for process in others if session_of(process) in sessions)

    def _carries_mark(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark
        except (psutil.Error, OSError):
            return False


def write_private(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as JSON, for the owner only; nobody sees half of it, also after a power cut."""
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.touch(mode=0o600)
    with fresh.open("w") as file:
        json.dump(values, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def session_of(process: psutil.Process) -> int | None:
    """The session of `process`; None when it has ended."""
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def ray_environment(home: Path) -> dict[str, str]:
    """What must be in the environment before `ray` is imported to talk to the instance of `home`."""
    environment = Instance(home).environment()
    return {name: value for name, value in environment.items() if name.startswith("RAY_")}
