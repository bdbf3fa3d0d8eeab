"""What an installed package holds besides its modules."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]


@pytest.mark.parametrize("package", ["cluster", "configs", "jobs", "serve_apps", "training"])
def test_every_file_that_is_no_module_is_among_the_package_data(package: str) -> None:
    packed = {path for pattern in DATA.get(package, ()) for path in (ROOT / package).glob(pattern)}
    files = {
        path for path in (ROOT / package).rglob("*") if path.is_file() and path.parent.name != "__pycache__"
    }
    assert {path for path in files if path.suffix != ".py"} == packed
