"""One start or stop at a time of one instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from cluster.local.console import Console
from cluster.local.instance import Instance


@contextmanager
def exclusively(instance: Instance, console: Console) -> Iterator[None]:
    """Wait until no other process starts or stops `instance`, and keep others waiting meanwhile."""
    lock = FileLock(instance.run / "up.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.working("waiting for another `finsight up` or `down` of this folder")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
