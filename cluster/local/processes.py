"""End processes for sure."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil

KILL_TIMEOUT_S = 10.0


def end(processes: Iterable[psutil.Process], grace_s: float = 5.0) -> list[psutil.Process]:
    """Ask the processes to stop, kill those that have not after `grace_s`; what is alive even then."""
    asked = list(processes)
    for process in asked:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(asked, timeout=grace_s)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(stubborn, timeout=KILL_TIMEOUT_S)
    return alive
