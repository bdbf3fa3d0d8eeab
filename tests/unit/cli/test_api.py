from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cli.api import refusal
from cluster.errors import ConfigError, FinSightError, InputError, NotReady
from cluster.ports import free_port
from tests.commands import finsight


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, ConfigError),
        (403, ConfigError),
        (404, InputError),
        (422, InputError),
        (409, NotReady),
        (503, NotReady),
    ],
)
def test_a_refusal_says_whose_turn_it_is(status: int, kind: type[FinSightError]) -> None:
    error = refusal(status, {"detail": "What to do."})
    assert type(error) is kind
    assert str(error).startswith("What to do.")


def test_several_wrong_fields_are_all_told_and_a_single_one_once() -> None:
    first = {"pointer": "#/start", "detail": "too early"}
    second = {"pointer": "#/end", "detail": "too late"}
    detail = "The request is not valid. #/start: too early"
    assert str(refusal(422, {"detail": detail, "errors": [first]})) == detail
    assert str(
        refusal(422, {"detail": f"{detail} (and 1 more)", "errors": [first, second]})
    ).splitlines() == [
        "The request is not valid. #/start: too early (and 1 more)",
        "  #/start: too early",
        "  #/end: too late",
    ]


def test_an_error_of_the_server_has_the_id_that_its_log_has() -> None:
    error = refusal(500, {"detail": "Something went wrong on our side.", "request_id": "r-17"})
    assert str(error) == "Something went wrong on our side. (request r-17)"


def test_where_nothing_runs_the_command_that_starts_it_is_named(tmp_path: Path) -> None:
    said = finsight("predict", "SPX", FINSIGHT_HOME=str(tmp_path), FINSIGHT_API_PORT=str(free_port()))
    assert (said.status, said.out) == (1, "")
    assert "Start FinSight with `finsight up`" in said.err


def test_a_proxy_in_the_environment_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    port = free_port()
    said = finsight("predict", "SPX", FINSIGHT_HOME=str(tmp_path), FINSIGHT_API_PORT=str(port))
    assert f"No API answers at http://127.0.0.1:{port}" in said.err


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[int]:
    """A web server that is not FinSight's."""

    def handler(*arguments: object) -> http.server.SimpleHTTPRequestHandler:
        return http.server.SimpleHTTPRequestHandler(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_another_programs_server_is_not_taken_for_the_api(other_server: int, tmp_path: Path) -> None:
    said = finsight("models", FINSIGHT_HOME=str(tmp_path), FINSIGHT_API_PORT=str(other_server))
    assert (said.status, said.out) == (1, "")
    assert "is not FinSight's API, or not ready: it said 404 to /models" in said.err
