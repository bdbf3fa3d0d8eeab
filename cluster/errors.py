"""The error tree, grouped by what the caller can do about it.

FinSightError
├── ConfigError          fix the configuration, then run again
│   └── PortTaken
├── InputError           fix the request: it says what was given and what was expected
│   ├── BadBars
│   ├── BadFeatures
│   └── UnknownSymbol
├── NotReady             wait, or run the named command first
│   ├── ModelNotFound
│   ├── NotEnoughHistory
│   └── NotRunning
├── ProviderError        handled by the gateway: each kind has its own effect on breaker and queue
│   ├── RateLimited      wait until `retry_at`
│   │   └── Banned       nobody asks before `retry_at`, not even a probe
│   ├── Refused          set aside until somebody acts; asked again at `retry_at`
│   │   ├── Unauthorized the key is missing or not accepted
│   │   └── Restricted   the service does not serve this place
│   ├── NotEntitled      another provider must do it
│   ├── OutOfHorizon     another provider must do it: this one does not keep bars that old
│   ├── InvalidSymbol    give up: this provider does not know it
│   ├── ProviderDown     retry with backoff
│   ├── Malformed        retry once, keep a sample
│   └── Interrupted      keep the bars that it carries, then do as its cause says
├── StorageError         retry, or look at the database
├── LeaseLost            drop the work: somebody else owns it now
└── BundleRejected       the model files are not what their manifest says; the old model stays
"""

from __future__ import annotations

from datetime import datetime
from typing import Any


class FinSightError(Exception):
    """Root of every error that FinSight raises on purpose; its text is fit for a user to read."""


class ConfigError(FinSightError):
    """A setting is missing or wrong; the text names key, value and remedy."""


class PortTaken(ConfigError):
    """A port that FinSight should listen on is in use; the text names the process that holds it."""


class InputError(FinSightError):
    """The caller's input is wrong; the text says what was given and what was expected.

    `pointer` is the JSON pointer of the part that is wrong, when the input is a document; `#` is all of it.
    """

    def __init__(self, message: str, pointer: str = "#") -> None:
        super().__init__(message)
        self.pointer = pointer


class BadBars(InputError):
    """Bars break the invariants of `cluster.market.bars`."""


class BadFeatures(InputError):
    """Feature rows have the wrong number, shape or content."""


class UnknownSymbol(InputError):
    """The symbol is not in the symbol universe."""


class NotReady(FinSightError):
    """What was asked for does not exist yet; the text names the command that makes it."""


class ModelNotFound(NotReady):
    """No such registered model, version or alias."""


class NotEnoughHistory(NotReady):
    """The symbol has fewer bars than the features need."""


class NotRunning(NotReady):
    """The system, or the part that was asked, is not running."""


class ProviderError(FinSightError):
    """A provider did not give bars; the subclass says why, because each reason has its own effect."""


class RateLimited(ProviderError):
    """The provider's budget is used up until `retry_at`; not a failure, and no attempt is used."""

    def __init__(self, message: str, retry_at: datetime) -> None:
        super().__init__(message)
        self.retry_at = retry_at

    def __reduce__(self) -> tuple[type[RateLimited], tuple[str, datetime]]:
        """Keep `retry_at` when the error travels between Ray processes."""
        return type(self), (str(self), self.retry_at)


class Banned(RateLimited):
    """The provider has locked us out until `retry_at`; asking before that makes it longer."""


class Refused(ProviderError):
    """The provider answers nothing to us before somebody acts; no attempt is used.

    `retry_at` is when the gateway lets the next call through, once it has set the provider aside.
    """

    def __init__(self, message: str, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry_at = retry_at

    def __reduce__(self) -> tuple[type[Refused], tuple[str, datetime | None]]:
        """Keep `retry_at` when the error travels between Ray processes."""
        return type(self), (str(self), self.retry_at)


class Unauthorized(Refused):
    """The key is missing, or the provider does not accept it; the text names the setting."""


class Restricted(Refused):
    """The provider does not serve this address or place."""


class NotEntitled(ProviderError):
    """The provider's plan does not include this; another provider must do it."""


class OutOfHorizon(ProviderError):
    """The provider does not keep what lies before `earliest`."""

    def __init__(self, message: str, earliest: datetime | None = None) -> None:
        super().__init__(message)
        self.earliest = earliest

    def __reduce__(self) -> tuple[type[OutOfHorizon], tuple[str, datetime | None]]:
        """Keep `earliest` when the error travels between Ray processes."""
        return type(self), (str(self), self.earliest)


class InvalidSymbol(ProviderError):
    """The provider does not know the symbol."""


class ProviderDown(ProviderError):
    """Time-out, connection error, 5xx or an open breaker; retry with backoff."""


class Malformed(ProviderError):
    """The provider's answer has an unknown shape."""


class Interrupted(ProviderError):
    """A part of the range was answered before `cause` ended it.

    `bars` is a table of `BAR_SCHEMA` with all that [start, `until`) holds; the rest begins at `until`.
    """

    def __init__(self, bars: Any, until: datetime, cause: ProviderError) -> None:
        super().__init__(f"answered up to {until.isoformat()} only: {cause}")
        self.bars, self.until, self.cause = bars, until, cause

    def __reduce__(self) -> tuple[type[Interrupted], tuple[Any, datetime, ProviderError]]:
        """Keep what was answered when the error travels between Ray processes."""
        return type(self), (self.bars, self.until, self.cause)


class StorageError(FinSightError):
    """The database refused or is out of reach."""


class LeaseLost(FinSightError):
    """The lease of this attempt has ended; nothing of the attempt was or will be written."""


class BundleRejected(FinSightError):
    """Model files do not agree with their manifest, or are of a format that is never loaded."""
