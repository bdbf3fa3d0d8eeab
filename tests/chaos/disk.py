"""A small disk that a test may fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest


@contextmanager
def disk(size_mb: int) -> Iterator[Path]:
    """A file system of that size in memory, mounted on a folder of its own."""
    folder = Path(mkdtemp(prefix="finsight-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Not a byte is left as long as the context lasts."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for chunk in (2**20, 2**12):
            try:
                while file.write(b"\0" * chunk):
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        ballast.unlink()


@cache
def _can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    try:
        with disk(1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


needs_mount = pytest.mark.skipif(not _can_mount(), reason="needs to mount a tmpfs (root with CAP_SYS_ADMIN)")
