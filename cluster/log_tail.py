"""The log of a job as it grows: the dashboard sends what is new, so that nothing is read twice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect


class LogTail:
    """Follows the log at one URL. A connection that breaks is made anew, and begins the log anew."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """`url` with scheme `ws` or `wss`; connects at the first `read`."""
        self._url, self._headers = url, dict(headers)
        self._connection: ClientConnection | None = None
        self._open = ExitStack()
        self._at = 0

    def read(self, timeout_s: float) -> tuple[int, str]:
        """What comes within `timeout_s` seconds, and the character of the log that it begins with."""
        at, parts = self._at, list[str]()
        deadline_s = time.monotonic() + timeout_s
        try:
            if self._connection is None:
                self._connection, at = self._connected(), 0
            while True:
                left_s = max(0.0, deadline_s - time.monotonic())
                parts.append(str(self._connection.recv(timeout=left_s)))
        except TimeoutError:
            pass
        except (OSError, WebSocketException):
            self.close()
            time.sleep(max(0.0, deadline_s - time.monotonic()))
        text = "".join(parts)
        self._at = at + len(text)
        return at, text

    def close(self) -> None:
        """Look no longer."""
        self._connection = None
        with suppress(OSError, WebSocketException):
            self._open.close()

    def _connected(self) -> ClientConnection:
        made = connect(
            self._url,
            additional_headers=self._headers,
            proxy=None,  # the token must not go through a proxy
            compression=None,
            max_size=None,  # a line may have any length
            # Ray only sends: it answers neither a ping nor the wish to close
            ping_interval=None,
            close_timeout=0,
        )
        return self._open.enter_context(made)
