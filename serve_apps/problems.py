"""Errors as RFC 9457 problem documents: one shape for every status, never a stack trace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cluster import errors, logs
from cluster.redaction import redact
from serve_apps import methods

_log = logs.get(__name__)
_MOST_ERRORS = 100  # the library can only describe all of them or none
_LONGEST_ECHO = 60
_Model = TypeVar("_Model", bound=BaseModel)

STATUS: Mapping[type[errors.FinSightError], HTTPStatus] = {
    errors.InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotEnoughHistory: HTTPStatus.CONFLICT,
    errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    errors.NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RateLimited: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ConfigError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ProviderError: HTTPStatus.BAD_GATEWAY,
    errors.BundleRejected: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""HTTP status of each branch of the error tree; the nearest base class decides, anything else is a 500."""


class FieldError(BaseModel):
    """One thing that is wrong with the request."""

    pointer: str = Field(
        description="JSON pointer into the body (`#/features/0/3`), or `query`/`path` and its name."
    )
    detail: str = Field(description="What was expected there.")


class Problem(BaseModel):
    """RFC 9457 problem document, sent as `application/problem+json`."""

    type: str = Field(examples=["urn:finsight:problem:not-enough-history"])
    title: str = Field(examples=["Not enough history"])
    status: int = Field(examples=[409])
    detail: str = Field(description="What was given, what was expected and what to do.")
    instance: str = Field(description="Path of the request.")
    request_id: str | None = Field(None, description="Also in the header `X-Request-ID` and in the logs.")
    errors: list[FieldError] | None = Field(None, description="Only for input that failed validation.")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems; 500 is added."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content} for status in (*statuses, 500)
    }


class InvalidRequest(errors.InputError):
    """The request's body or parameters failed validation; `fields` says where."""

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.fields = list(fields)

    @classmethod
    def of(cls, failures: Sequence[Any]) -> InvalidRequest:
        """From the error list of pydantic or FastAPI; at most the first 20 are told."""
        fields = [FieldError(pointer=_pointer(failure), detail=_reason(failure)) for failure in failures[:20]]
        first = f"{fields[0].pointer}: {fields[0].detail}" if fields else "invalid"
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return cls(f"The request is not valid. {first}{more}", fields)


@contextmanager
def of_query() -> Iterator[None]:
    """Errors of input inside point at the parameters of the query, and not into a body."""
    try:
        yield
    except errors.InputError as error:
        error.pointer = error.pointer.replace("#/", "query ", 1)
        raise


def parse(model: type[_Model], body: bytes) -> _Model:
    """Read JSON strictly: no NaN, no Infinity, bounded depth; raises `InvalidRequest`.

    Models keep the number of errors small themselves, with `fail_fast` on every list.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        count = error.error_count()
        if count > _MOST_ERRORS:
            raise InvalidRequest(f"The request is not valid: it is wrong in {count} places.") from None
        raise InvalidRequest.of(error.errors(include_url=False)) from None


def _pointer(failure: Mapping[str, Any]) -> str:
    # Names in brackets are branches of a union, which is our way of writing the model and not in the JSON.
    steps = [shortened(str(step)) for step in failure["loc"] if not str(step).startswith("[")]
    if steps[:1] in (["query"], ["path"], ["header"]):
        return " ".join(steps)
    return "#" + "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _reason(failure: Mapping[str, Any]) -> str:
    message = str(failure["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = failure.get("input")
    if isinstance(given, bool | int | float | str):
        message += f" (given: {shortened(repr(given))})"
    return message


def shortened(text: str) -> str:
    """`text` of the caller's, cut so that an answer is never as large as a hostile request."""
    return text if len(text) <= _LONGEST_ECHO else f"{text[: _LONGEST_ECHO - 3]}..."


def response(
    request: Request,
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    fields: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One problem document; `kind` is the CamelCase name of the error, the status' phrase without it."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", kind).capitalize() if kind else HTTPStatus(status).phrase
    problem = Problem(
        type=f"urn:finsight:problem:{words.lower().replace(' ', '-')}" if kind else "about:blank",
        title=words,
        status=status,
        detail=detail,
        instance=request.url.path,
        request_id=request.scope.get("request_id"),
        errors=list(fields) or None,
    )
    return Response(
        orjson.dumps(problem.model_dump(exclude_none=True)),
        status,
        media_type="application/problem+json",
        headers=dict(headers or {}),
    )


def status_of(error: errors.FinSightError) -> HTTPStatus:
    """The HTTP status for an error of the tree."""
    for base in type(error).__mro__:
        if base in STATUS:
            return STATUS[base]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def install(app: FastAPI) -> None:
    """Make every expected error that leaves a route of `app` a problem document."""
    app.add_exception_handler(errors.FinSightError, _expected)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)


async def _expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.FinSightError)  # noqa: S101 - how it was registered
    status, detail = status_of(error), str(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = redact(detail)  # the client libraries of the stores quote their URLs
        _log.warning("request_refused", status=int(status), error=type(error).__name__, detail=detail)
    headers = {"Retry-After": "2"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return response(
        request, status, detail, kind=type(error).__name__, fields=_fields(error), headers=headers
    )


def _fields(error: errors.FinSightError) -> Sequence[FieldError]:
    if isinstance(error, InvalidRequest):
        return error.fields
    return (
        [FieldError(pointer=error.pointer, detail=str(error))] if isinstance(error, errors.InputError) else []
    )


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - how it was registered
    detail, headers = error.detail, dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"Nothing is served at {request.url.path}. See /docs for every path."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = methods.allowed(request)
        detail = f"{request.url.path} does not answer {request.method}. Allowed: {headers['Allow']}."
    return response(request, error.status_code, detail, headers=headers)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - how it was registered
    return await _expected(request, InvalidRequest.of(error.errors()))


def unexpected(request: Request, error: Exception) -> Response:
    """The answer to an error that is our fault; the log has the trace, the answer only the request id."""
    _log.error("request_failed", path=request.url.path, exc_info=error)
    detail = "Something went wrong on our side. The request id finds it in the logs."
    return response(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)
