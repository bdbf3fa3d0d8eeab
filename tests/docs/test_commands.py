"""Commands in the documentation can be given: make targets, `finsight` commands and their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.settings import environment_names
from tests.conformance import candle_servers
from tests.docs import pages
from tests.docs.render import cli

_WRITTEN = [page for page in pages.all_pages() if page.name not in {"cli.md", "CHANGELOG.md"}]
_OUTSIDE = {"FINSIGHT_CONFIG"}  # read before there are settings
_OF_TESTS = {candle_servers.VARIABLE, "FINSIGHT_CHAOS_SEED"}  # no program reads it


@pytest.mark.parametrize("page", _WRITTEN, ids=lambda page: str(page.relative_to(pages.ROOT)))
def test_commands_on_the_page_exist(page: Path) -> None:
    wrong = [command for command in _commands(page) if trouble(command)]
    assert [(command, trouble(command)) for command in wrong] == []


def test_the_readme_names_every_group_of_commands() -> None:
    named = {words[1] for words in _commands(pages.ROOT / "README.md") if words[0] == "finsight"}
    assert named == set(cli.root().commands)


def test_documented_environment_names_are_settings() -> None:
    known = {*environment_names().values(), *_OUTSIDE, *_OF_TESTS}
    for page in pages.all_pages():
        named = set(re.findall(r"\b((?:FINSIGHT|BACKFILL)_[A-Z0-9_]+)\b", page.read_text()))
        assert named <= known, page


def test_a_wrong_command_is_found() -> None:
    assert trouble(["make", "coffee"]) == "no such target"
    assert trouble(["finsight", "brew"]) == "no such command"
    assert trouble(["finsight", "models", "brew"]) == "no such command"
    assert trouble(["finsight", "predict", "SPX", "--brew"]) == "no option --brew"
    assert trouble(["finsight", "predict", "SPX", "--json"]) == ""


def _commands(page: Path) -> Iterator[list[str]]:
    """Words of every `make` and `finsight` command in shell blocks and in code of the text."""
    lines = [
        line for language, text in pages.code_blocks(page) if language == "sh" for line in text.splitlines()
    ]
    for line in [*lines, *re.findall(r"`([^`\n]+)`", pages.prose(page))]:
        without_settings = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.strip())
        if re.match(r"(make|finsight) ", without_settings):
            yield shlex.split(without_settings)


def trouble(words: list[str]) -> str:
    """Why the command cannot be given; empty when it can."""
    if words[0] == "make":
        return "" if words[1] in _targets() else "no such target"
    command: Any = cli.root()
    rest = words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands.get(rest.pop(0))
    if command is None:
        return "no such command"
    if rest and rest[0] == "COMMAND":
        return ""
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    unknown = [word for word in rest if word.startswith("--") and word not in {*known, "--help"}]
    return f"no option {unknown[0]}" if unknown and not hasattr(command, "commands") else ""


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (pages.ROOT / "Makefile").read_text(), re.MULTILINE))
