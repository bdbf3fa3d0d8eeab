"""The versions that an installation gets."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FREE = {"torch", "xgboost", "xgboost-cpu"}  # decided by the extra


def pins(requirements: list[str]) -> dict[str, str]:
    """Version by normalised name, extras and comments left out."""
    found = (re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;#]+)", line) for line in requirements)
    return {re.sub(r"[-_.]+", "-", each[1]).lower(): each[2] for each in found if each}


def test_every_pinned_requirement_is_pinned_to_the_same_version_for_the_installer() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = pins(project["dependencies"]) | pins(extras["dev"]) | pins(extras["bench"])
    constraints = pins((ROOT / "constraints.txt").read_text().splitlines())

    assert len(required) > 30
    assert {name: constraints.get(name) for name in required if name not in _FREE} == required
