"""What the pages tell of the repository itself is so: its tree, layers, markers, decisions and remedies."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docs import pages
from tests.docs.test_commands import trouble

PACKAGES = ("cluster", "training", "serve_apps", "jobs")
DECISIONS = sorted((pages.DOCS / "adr").glob("0*.md"))


def _pyproject() -> Any:
    return tomllib.loads((pages.ROOT / "pyproject.toml").read_text())


def _names_of(rows: list[list[str]]) -> set[str]:
    return {name.strip("` ") for row in rows for name in row[0].split(",")}


def test_the_tree_of_the_readme_is_that_of_the_repository() -> None:
    tree = next(text for _, text in pages.code_blocks(pages.ROOT / "README.md") if "cluster/  " in text)
    named = {
        found[1]: set(re.findall(r"^  (\w+)/", found[0], re.MULTILINE))
        for found in re.finditer(r"^(\w+)/.*\n(?:  .*\n)*", tree, re.MULTILINE)
    }
    for top, below in named.items():
        packages = {made.parent.name for made in (pages.ROOT / top).glob("*/__init__.py")}
        assert not below or below == packages, top
        assert (pages.ROOT / top).is_dir()
    assert set(PACKAGES) <= set(named)


def test_the_documented_layers_are_those_that_are_checked() -> None:
    contracts = _pyproject()["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one.get("containers") == ["cluster"])
    checked = [{name.strip("() ") for name in layer.split("|")} for layer in layers]
    section = pages.section(pages.DOCS / "explanation" / "architecture.md", "Layers")
    assert [_names_of([row]) for row in pages.rows_of(section)] == checked


def test_the_documented_markers_and_test_folders_exist() -> None:
    declared = {text.split(":")[0] for text in _pyproject()["tool"]["pytest"]["ini_options"]["markers"]}
    names = _names_of(pages.rows_of(pages.section(pages.ROOT / "CONTRIBUTING.md", "Tests")))
    folders = {name for name in names if "/" in name}
    assert names - folders == declared
    assert folders == {f"tests/{made.parent.name}" for made in (pages.ROOT / "tests").glob("*/__init__.py")}


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_number_and_its_four_parts(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {int(page.stem[:4])}. ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Status", "Context", "Decision", "Consequences"]


def test_the_index_lists_every_decision_under_its_title() -> None:
    listed = (pages.DOCS / "adr" / "index.md").read_text()
    for page in DECISIONS:
        number, title = page.read_text().splitlines()[0].removeprefix("# ").split(". ", 1)
        assert f"{number}. [{title}]({page.name})" in listed


def test_commands_that_messages_of_the_code_advise_exist() -> None:
    advised = {
        command
        for package in PACKAGES
        for path in (pages.ROOT / package).rglob("*.py")
        for command in re.findall(r"`(finsight [a-z][^`{}]*)`", path.read_text())
    }
    assert "finsight up" in advised
    assert {command: said for command in advised if (said := trouble(command.split()))} == {}
