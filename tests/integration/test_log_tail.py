"""A log that is sent as it grows, by a server whose connections break."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from websockets.sync.server import ServerConnection, serve

from cluster.log_tail import LogTail
from cluster.ports import free_port

LINES = ["first\n", "second ä\n", "third\n"]


@contextmanager
def sending(port: int, counts: list[int]) -> Iterator[list[str]]:
    """Sends so many lines on each connection, and breaks all but the last; yields the keys it saw."""
    keys: list[str] = []
    done = threading.Event()

    def send(connection: ServerConnection) -> None:
        assert connection.request is not None
        keys.append(connection.request.headers["Authorization"])
        for line in LINES[: counts[len(keys) - 1]]:
            connection.send(line)
        if len(keys) < len(counts):
            connection.socket.close()
        else:
            done.wait(60)

    with serve(send, "127.0.0.1", port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield keys
        done.set()
        server.shutdown()
        thread.join()


def test_a_tail_goes_on_after_a_break_and_says_where_each_piece_stands() -> None:
    port, log = free_port(), ""
    with closing(LogTail(f"ws://127.0.0.1:{port}", {"Authorization": "Bearer x"})) as tail:
        assert tail.read(0.01) == (0, "")  # nobody listens yet
        with sending(port, [1, 2, 3]) as keys:
            while len(log) < len("".join(LINES)):
                at, text = tail.read(0.05)
                assert at <= len(log)
                log = log[:at] + text if len(text) + at > len(log) else log
            tail.close()

    assert log == "".join(LINES)
    assert keys == ["Bearer x"] * 3


def test_what_comes_within_the_time_is_one_piece_and_the_next_stands_behind_it() -> None:
    port = free_port()
    with closing(LogTail(f"ws://127.0.0.1:{port}", {"Authorization": "x"})) as tail, sending(port, [3]):
        log = ""
        while len(log) < len("".join(LINES)):
            at, text = tail.read(0.05)
            assert at == len(log)
            log += text
        tail.close()

    assert log == "".join(LINES)
