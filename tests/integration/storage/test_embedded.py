"""The embedded servers: one a folder, recognised for sure, whatever happened and whatever it is called."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from cluster.errors import PortTaken
from cluster.storage.embedded import process
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.embedded.valkey import EmbeddedValkey

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name means much to a shell and to configuration files."""
    return tmp_path_factory.mktemp("home") / 'it\'s "ours" $(false) `false` é'


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(home)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def bus(home: Path) -> Iterator[EmbeddedValkey]:
    made = EmbeddedValkey(home)
    yield made
    made.stop()


def ask(dsn: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            rows: list[tuple[object, ...]] = cursor.fetchall()
            return rows
    finally:
        connection.close()


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def test_many_starts_at_once_make_one_server(home: Path, server: EmbeddedPostgres) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from cluster.storage.embedded.postgres import EmbeddedPostgres;"
        "print(EmbeddedPostgres(Path(sys.argv[1])).start())"
    )
    command = [sys.executable, "-c", code, str(home)]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    dsns = {start.communicate(timeout=120)[0].strip() for start in starts}

    assert dsns == {server.start()}
    assert ask(server.dsn(), "SELECT current_database()") == [("finsight",)]


def test_a_server_that_was_killed_comes_back_with_what_it_held(home: Path, server: EmbeddedPostgres) -> None:
    dsn = server.start()
    ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer; SELECT 1")
    killed = psutil.Process(postmaster(home))
    family = [killed, *killed.children()]
    for one in family:
        one.kill()
    psutil.wait_procs(family, timeout=30)

    assert not server.running()
    assert server.start() == dsn
    assert ask(dsn, "SELECT answer FROM kept") == [(42,)]


def test_the_number_of_a_killed_server_may_belong_to_another_server_now(
    home: Path, server: EmbeddedPostgres, postgres: EmbeddedPostgres, servers_home: Path
) -> None:
    server.start()
    server.stop()
    record = home / "postgres" / "data" / "postmaster.pid"
    theirs = postmaster(servers_home)
    record.write_text(f"{theirs}\n{home}\n0\n1\n\n127.0.0.1\n0 0\nready   \n")

    assert not server.running()
    server.stop()
    assert postgres.running()
    assert ask(server.start(), "SELECT 1") == [(1,)]
    assert postmaster(home) != theirs == postmaster(servers_home)


def test_valkey_keeps_what_it_was_told_in_a_folder_of_any_name(bus: EmbeddedValkey) -> None:
    with redis.Redis.from_url(bus.start()) as client:
        client.set("answer", 42)
    url = bus.url()
    bus.stop()

    assert bus.start() == url
    with redis.Redis.from_url(url) as client:
        assert client.get("answer") == b"42"


def test_a_valkey_of_another_folder_is_not_taken_for_ours(
    tmp_path: Path, valkey_url: str, servers_home: Path
) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "valkey.pid").write_text((servers_home / "valkey" / "valkey.pid").read_text())
    ours = EmbeddedValkey(tmp_path)

    assert not ours.running()
    ours.stop()
    with redis.Redis.from_url(valkey_url) as theirs:
        assert theirs.ping()


@pytest.mark.parametrize(
    ("server_of", "setting"),
    [(EmbeddedPostgres, "FINSIGHT_POSTGRES_PORT"), (EmbeddedValkey, "FINSIGHT_REDIS_PORT")],
)
def test_a_port_that_was_asked_for_and_is_taken_names_its_setting(
    server_of: Callable[..., EmbeddedPostgres | EmbeddedValkey], setting: str, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        with pytest.raises(PortTaken, match=setting):
            server_of(tmp_path, port=taken.getsockname()[1]).start()


def test_a_log_that_has_grown_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 3)
    log = tmp_path / "server.log"
    for word in ("long", "new"):
        with process.launch([sys.executable, "-c", f"print('{word}')"], log=log) as started:
            assert started.wait(60) == 0

    assert log.read_text() == "new\n"
    assert (tmp_path / "server.old.log").read_text() == "long\n"
