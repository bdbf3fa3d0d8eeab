"""Work in the background that does not keep an interrupted process alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Background:
    """Runs `work` in a daemon thread from its construction on."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._seconds = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> float:
        """Seconds that the work took; raises what it raised, or TimeoutError after `timeout_s`."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._seconds

    def _run(self) -> None:
        started = time.monotonic()
        try:
            self._work()
        except BaseException as error:
            self._error = error
        self._seconds = round(time.monotonic() - started, 2)
