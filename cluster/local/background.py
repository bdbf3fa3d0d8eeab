"""Start a program that outlives us: a session of its own, its output in a file."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import NotRunning
from cluster.storage.embedded.process import last_lines, launch

_PAUSE_S = 0.1


@dataclass(frozen=True)
class Starting:
    """A program on its way up."""

    name: str
    log: Path
    ready: Callable[[], bool]
    """Whether it can be used."""
    process: subprocess.Popen[bytes] | None = None
    """None when it ran before us."""

    def wait(self, timeout_s: float) -> None:
        """Return when it is ready; NotRunning with its last words when it failed or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            # Status zero: it has put its servers in the background and is done.
            if self.process is not None and self.process.poll():
                self._give_up(f"ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                self._give_up(f"is not ready after {timeout_s:g} s")
            time.sleep(_PAUSE_S)

    def _give_up(self, why: str) -> None:
        raise NotRunning(f"{self.name} {why}: {last_lines(self.log)}. See {self.log}.")


def start(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    ready: Callable[[], bool],
) -> Starting:
    """Start `command` with `environment` on top of ours, its output appended to `log`."""
    return Starting(name, log, ready, launch(command, log=log, environment=environment))
