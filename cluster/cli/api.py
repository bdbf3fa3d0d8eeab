"""Requests to the running HTTP API, and its problem documents as errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cluster.errors import ConfigError, FinSightError, InputError, NotReady, NotRunning

if TYPE_CHECKING:
    from httpx import Response

    from cluster.settings import Settings

_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 60.0


class Api:
    """The API of the instance that the settings name; closes its connection as a context manager."""

    def __init__(self, settings: Settings) -> None:
        import httpx

        self._settings = settings
        self._url = settings.url("api")
        self._client = httpx.Client(
            base_url=self._url,
            timeout=httpx.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            trust_env=False,  # a proxy of this machine does not know the way back to it
            verify=self._url.startswith("https:"),  # reading the certificates takes longer than the request
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> Any:
        """The resource at `path`, as JSON types."""
        return self._send("GET", path, params=query, headers=self._user_headers())

    def post(self, path: str, body: Mapping[str, Any], *, admin: bool = False) -> Any:
        """The answer to `body`; `admin` sends the administrator's key."""
        if not admin:
            return self._send("POST", path, json=body, headers=self._user_headers())
        try:
            return self._send("POST", path, json=body, headers=self._admin_headers())
        except ConfigError:
            # A key that was changed in a file counts from the reload on that this may be.
            if (then := self._key_of_the_instance()) is None:
                raise
            return self._send("POST", path, json=body, headers={"X-API-Key": then})

    def pages(self, path: str) -> Iterator[Any]:
        """Every item of a list, page by page."""
        query: dict[str, str | int] = {"limit": 1000}
        while True:
            page = self.get(path, **query)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _send(self, method: str, path: str, **request: Any) -> Any:
        import httpx

        try:
            answer = self._client.request(method, path, **request)
        except httpx.ConnectError:
            raise NotRunning(
                f"No API answers at {self._url}. Start FinSight with `finsight up`; if it runs elsewhere, "
                "set FINSIGHT_HOST and FINSIGHT_API_PORT."
            ) from None
        except httpx.HTTPError as error:
            raise NotRunning(f"The API at {self._url} did not answer: {error}. Try again.") from None
        return self._understood(answer)

    def _understood(self, answer: Response) -> Any:
        kind = answer.headers.get("content-type", "").split(";")[0]
        if kind == "application/problem+json":
            raise refusal(answer.status_code, answer.json())
        if not answer.is_success or kind != "application/json":
            raise NotRunning(
                f"What answers at {self._url} is not FinSight's API, or not ready: it said "
                f"{answer.status_code} to {answer.request.url.path}. `finsight status` tells what runs."
            )
        return answer.json()

    def _user_headers(self) -> dict[str, str]:
        key = self._settings.api_key or self._settings.admin_api_key
        return {"X-API-Key": key.get_secret_value()} if key else {}

    def _key_of_the_instance(self) -> str | None:
        """The administrator's key of the running embedded instance, when the settings name another."""
        from cluster.settings import running_instance

        then: str | None = running_instance(self._settings.endpoints_file).get("admin_api_key")
        now = self._settings.admin_api_key
        return None if now is None or now.get_secret_value() == then else then

    def _admin_headers(self) -> dict[str, str]:
        key = self._settings.admin_api_key
        if key is None:
            raise ConfigError(
                "This needs an administrator's key: set ADMIN_API_KEY. `finsight up` makes one for its own "
                f"instance, but none runs in {self._settings.home} (FINSIGHT_HOME)."
            )
        return {"X-API-Key": key.get_secret_value()}


def refusal(status: int, problem: Mapping[str, Any]) -> FinSightError:
    """The error that a problem document (RFC 9457) describes."""
    text = str(problem.get("detail") or problem.get("title") or f"The API refused with status {status}.")
    wrong = problem.get("errors") or []
    if len(wrong) > 1:  # a single one is told by the detail
        text = "\n".join([text, *(f"  {each['pointer']}: {each['detail']}" for each in wrong)])
    if status in (401, 403):
        return ConfigError(f"{text} Set ADMIN_API_KEY to the key of the instance that you mean.")
    if status >= 500 and problem.get("request_id"):
        text = f"{text} (request {problem['request_id']})"
    if status in (409, 503):
        return NotReady(text)
    return InputError(text) if status < 500 else FinSightError(text)
