"""Options and arguments that several commands share; a wrong one is wrong usage (exit 2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperGroup

from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier, parse_symbol


def symbol(text: str) -> str:
    """A canonical symbol, or wrong usage."""
    try:
        return parse_symbol(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def symbols(text: str) -> str:
    """Canonical symbols with commas between, or wrong usage."""
    return ",".join(symbol(each.strip()) for each in text.split(","))


def moment(text: str) -> datetime:
    """A date or time; without a time zone it is meant in UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no date or time; give one in UTC, like 2018-12-31 or 2018-12-31T14:30"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


SymbolArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="SYMBOL", parser=symbol, help="A symbol of the universe.")
]
SymbolsOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--symbols", metavar="A,B", parser=symbols, help="Only these; default: all."),
]
IntervalOption: TypeAlias = Annotated[Interval, typer.Option("--interval", "-i", help="Length of a bar.")]
TierOption: TypeAlias = Annotated[
    Tier | None, typer.Option("--tier", help="T0 is the most urgent, T3 the least.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
WaitOption: TypeAlias = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or only print its id.")
]


class WithDefault(TyperGroup):
    """A group with a command that is meant when none is named: `finsight symbols --json` lists."""

    default = "list"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default in front of what begins with no command."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def group(app: typer.Typer, name: str, summary: str, default: str = "list") -> typer.Typer:
    """A new family of commands in `app`, of which `default` is meant when none is named."""
    family = typer.Typer(cls=type("Group", (WithDefault,), {"default": default}), help=summary)
    app.add_typer(family, name=name)
    return family
