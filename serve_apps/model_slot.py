"""Holds the model that answers now, and follows the registry's champion without dropping a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster import logs, metrics
from cluster.errors import BundleRejected, NotReady
from cluster.redaction import redact
from training.predictor import Predictor
from training.registry import CHAMPION

_log = logs.get(__name__)


class ModelSlot:
    """One reference that is swapped as a whole: every request uses exactly one version.

    `champion` names the version that should be served (None: nothing is promoted yet), `load` gets it; both
    may block, so they run in a thread. When either fails, the model that is there goes on answering.
    """

    def __init__(
        self, champion: Callable[[], str | None], load: Callable[[str], Predictor], poll_s: float
    ) -> None:
        self._champion = champion
        self._load = load
        self._poll_s = poll_s
        self.looked = asyncio.Event()
        """Set after the first look, whatever it found."""
        self._current: Predictor | None = None
        self._served: str | None = None
        self._refused: str | None = None
        self._trouble: str | None = None

    @property
    def current(self) -> Predictor | None:
        """The model that answers now."""
        return self._current

    def require(self) -> Predictor:
        """The model that answers now; raises `NotReady` that says why there is none."""
        if self._current is None:
            raise NotReady(self._trouble or "The model is still being loaded. Try again in a few seconds.")
        return self._current

    async def follow(self) -> None:
        """Look at the champion every `poll_s` seconds until cancelled."""
        while True:
            await self.refresh()
            self.looked.set()
            await asyncio.sleep(self._poll_s)

    async def refresh(self) -> None:
        """Load the champion unless it is already served or was refused; never raises."""
        try:
            wanted = await asyncio.to_thread(self._champion)
            if wanted is None:
                self._note("No model has been promoted yet. Run `finsight train`.")
            elif wanted not in (self._served, self._refused):
                await self._switch(wanted)
        except Exception as error:  # the registry's client has the errors of several libraries
            self._note(redact(f"The model registry gave no model: {error}"))

    async def _switch(self, wanted: str) -> None:
        try:
            predictor = await asyncio.to_thread(self._load, wanted)
        except BundleRejected as error:
            self._refused = wanted
            metrics.model_rejected_total.inc()
            self._note(f"Version {wanted} was refused, its files are not sound: {error}")
            return
        previous, self._current = self._current, predictor
        self._served, self._refused, self._trouble = wanted, None, None
        _publish(previous, predictor)
        _log.info("model_loaded", name=predictor.name, version=predictor.version)

    def _note(self, trouble: str) -> None:
        # Said once and not at every look, which comes every few seconds.
        if trouble != self._trouble:
            self._trouble = trouble
            serving = self._current.version if self._current else None
            _log.warning("model_not_switched", reason=trouble, serving=serving)


def _publish(previous: Predictor | None, current: Predictor) -> None:
    if previous is not None:
        metrics.model_info.labels(previous.name, previous.version, CHAMPION).set(0)
    metrics.model_info.labels(current.name, current.version, CHAMPION).set(1)
