"""Keys come in a header, never in the URL, and are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from cluster.storage.audit import Author
from serve_apps.services import Services

_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")
_bearer = HTTPBearer(auto_error=False, description="The same key as a bearer token.")
_FINGERPRINT_DIGITS = 8  # tells keys apart, and is too short to find a key by


def admin_only(services: Services) -> Callable[..., None]:
    """A FastAPI dependency: 401 without a known key, 403 with a key that is not the administrator's.

    The keys are those that hold when it is asked: a reload may change them.
    """

    def check(
        request: Request,
        header: Annotated[str | None, Security(_header)] = None,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> None:
        given = header or (bearer.credentials if bearer else "")
        settings = services.settings
        is_admin, is_user = _same(given, settings.admin_api_key), _same(given, settings.api_key)
        if is_admin:
            request.state.author = _author(request, given)
            return
        if is_user:
            raise HTTPException(HTTPStatus.FORBIDDEN, "This key lacks the scope `admin`.")
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "A known key is needed, in the header `X-API-Key` or as `Authorization: Bearer`.",
            {"WWW-Authenticate": 'Bearer realm="finsight"'},
        )

    return check


def author(request: Request) -> Author:
    """Who sent a request that `admin_only` has let through, for the audit log."""
    found: Author = request.state.author
    return found


def _author(request: Request, key: str) -> Author:
    fingerprint = hashlib.sha256(key.encode()).hexdigest()[:_FINGERPRINT_DIGITS]
    address = request.client.host if request.client else None
    return Author(f"admin key {fingerprint}", request.scope.get("request_id"), address)


def _same(given: str, expected: SecretStr | None) -> bool:
    if expected is None or not expected.get_secret_value():
        return False
    # Digests have one length, so that the comparison tells nothing about the key's.
    digests = (hashlib.sha256(text.encode()).digest() for text in (given, expected.get_secret_value()))
    return hmac.compare_digest(*digests)
