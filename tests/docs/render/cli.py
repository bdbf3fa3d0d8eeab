"""The command line as Markdown, out of the registered commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from cluster.cli.main import app
from tests.docs.pages import table


def root() -> Any:
    """The program itself, with its groups and commands."""
    return typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Every command that does something, by its full name behind `finsight`."""
    return dict(_leaves("", root()))


def _leaves(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if not command.hidden:
            full = f"{prefix} {name}".strip()
            yield from _leaves(full, command) if hasattr(command, "commands") else [(full, command)]


def overview() -> str:
    """One row a command."""
    rows = [
        [f"[`finsight {name}`](#finsight-{name.replace(' ', '-')})", _summary(command)]
        for name, command in commands().items()
    ]
    return table(["Command", "What it does"], rows)


def details() -> str:
    """One section a command."""
    return "\n\n".join(_detail(name, command) for name, command in commands().items())


def options() -> str:
    """The options that stand before the command."""
    rows = [_row(option) for option in root().params]
    return table(["Option", "Default", "Meaning"], rows)


def _summary(command: Any) -> str:
    summary: str = inspect.cleandoc(command.help).split("\n\n")[0]
    return " ".join(summary.split())


def _detail(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    words = [piece for param in command.params for piece in param.get_usage_pieces(context)]
    usage = " ".join(["finsight", name, *(word.strip("{}") for word in words), "[OPTIONS]"])
    rows = [_row(param) for param in command.params]
    parts = [f"### finsight {name}", inspect.cleandoc(command.help), f"```\n{usage}\n```"]
    return "\n\n".join([*parts, table(["Argument or option", "Default", "Meaning"], rows)])


def _row(param: Any) -> list[str]:
    is_option = param.opts[0].startswith("-")
    names = (
        [*param.opts, *param.secondary_opts] if is_option else [(param.metavar or param.name).strip("[].")]
    )
    kind = f" {_kind(param)}" if is_option and not param.is_flag else ""
    return [", ".join(f"`{name}`" for name in names) + kind, _default(param), param.help or ""]


def _kind(param: Any) -> str:
    if param.metavar:
        return f"`{param.metavar}`"
    context = root().make_context("finsight", ["status"], resilient_parsing=True)
    kind = param.display_type(context).strip("<>").removesuffix(" range")
    choices = [f"`{choice}`" for choice in kind.split("|")]
    return f"({', '.join(choices)})" if len(choices) > 1 else choices[0]


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if param.default is None or param.is_eager:
        return ""
    if isinstance(param.default, bool):
        return ("on" if param.default else "off") if param.opts[0].startswith("-") else ""
    value = param.default.value if isinstance(param.default, Enum) else param.default
    assert isinstance(value, str | int | float), f"{param.name}: {value!r}"
    return f"`{value}`"
