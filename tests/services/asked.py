"""A request that a service on loopback got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]

    @classmethod
    def of(cls, request: Request) -> Asked:
        """What of `request` tests look at."""
        return cls(request.url.path, dict(request.query_params), dict(request.headers))
