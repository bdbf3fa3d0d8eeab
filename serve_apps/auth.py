"""Keys come in a header, never in the URL, and are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.exceptions import HTTPException

_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")
_bearer = HTTPBearer(auto_error=False, description="The same key as a bearer token.")


def admin_only(admin_key: SecretStr | None, user_key: SecretStr | None) -> Callable[..., None]:
    """A FastAPI dependency: 401 without a known key, 403 with a key that is not the administrator's."""

    def check(
        header: Annotated[str | None, Security(_header)] = None,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> None:
        given = header or (bearer.credentials if bearer else "")
        is_admin, is_user = _same(given, admin_key), _same(given, user_key)
        if is_admin:
            return
        if is_user:
            raise HTTPException(HTTPStatus.FORBIDDEN, "This key lacks the scope `admin`.")
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "A known key is needed, in the header `X-API-Key` or as `Authorization: Bearer`.",
            {"WWW-Authenticate": 'Bearer realm="finsight"'},
        )

    return check


def _same(given: str, expected: SecretStr | None) -> bool:
    if expected is None or not expected.get_secret_value():
        return False
    # Digests have one length, so that the comparison tells nothing about the key's.
    digests = (hashlib.sha256(text.encode()).digest() for text in (given, expected.get_secret_value()))
    return hmac.compare_digest(*digests)
