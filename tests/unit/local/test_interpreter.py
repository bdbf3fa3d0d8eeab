"""The path of Python that Ray is started with."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from cluster.local import interpreter

SAYS = "import sys; print(sys.prefix != sys.base_prefix, sys.executable)"


def test_a_path_without_a_space_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")

    assert interpreter.plain(tmp_path) == "/usr/bin/python3"
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_a_space_is_reached_by_a_link_and_stays_the_same_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "my clone" / ".venv")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my clone" / ".venv" / "bin" / "python"))
    (tmp_path / "python").symlink_to("/nowhere")  # of a checkout that has moved

    found = interpreter.plain(tmp_path)

    assert found == str(tmp_path / "python" / "bin" / "python")
    said = subprocess.run([found, "-c", SAYS], capture_output=True, text=True, check=True).stdout
    assert said == f"True {found}\n"
