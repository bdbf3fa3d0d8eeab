"""What the user sees: data on stdout, talk on stderr, and progress that suits where it goes.

Everything obeys NO_COLOR, and nothing is cut or wrapped where no person reads it: in a pipe a row is a line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeAlias

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

OnProgress: TypeAlias = Callable[[float, str], None]
"""Takes the share that is done, 0 to 1, and what is being done."""

_PIPE_WIDTH = 100_000
_LINE_EVERY = 0.1  # of the whole work: where no bar can be drawn, a line is written that often


def emit(data: object, *, as_json: bool, text: RenderableType) -> None:
    """Put `data` on stdout as exactly one JSON document, or `text` for people.

    `data` may hold dataclasses, enumerations and datetimes, which become ISO 8601 in UTC; NaN becomes null.
    """
    console = _console()
    if as_json:
        import orjson

        options = orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATETIME
        console.file.write(orjson.dumps(data, default=_plain, option=options).decode() + "\n")
    else:
        console.print(Text(text) if isinstance(text, str) else text)


def talk(message: str) -> None:
    """Say something on stderr, where it does not mix with the data."""
    _console(stderr=True).print(Text(message))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table with a header; numbers to the right, times short, None as a dash."""
    body = [list(row) for row in rows]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, name in enumerate(columns):
        values = [row[place] for row in body if row[place] is not None]
        numeric = bool(values) and all(_is_number(value) for value in values)
        # The first column is what a person copies into the next command: it stays whole.
        made.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=not place)
    for row in body:
        made.add_row(*(Text(shown(value)) for value in row))
    return made


def facts(values: Mapping[str, object]) -> Table:
    """Names and values under each other; a mapping among the values is shown by dotted names."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in _flat(values):
        made.add_row(Text(name.replace("_", " ")), Text(shown(value)))
    return made


def shown(value: object) -> str:
    """One value as a person wants to read it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return when(value)
    if isinstance(value, Mapping):
        return json.dumps(value, default=_plain)
    if isinstance(value, list | tuple):
        return ", ".join(shown(each) for each in value) or "-"
    return str(value)


def when(moment: datetime | str | None) -> str:
    """A time in UTC to the second, midnight as the bare date; also from the ISO 8601 text of an answer."""
    if moment is None:
        return "-"
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    moment = moment.astimezone(UTC)
    if moment.timetz().replace(tzinfo=None) == datetime.min.time():
        return f"{moment:%Y-%m-%d}"
    return f"{moment:%Y-%m-%d %H:%MZ}" if not moment.second else f"{moment:%Y-%m-%d %H:%M:%SZ}"


@contextmanager
def progress() -> Iterator[OnProgress]:
    """Progress of one piece of work on stderr: a bar on a terminal, else a line now and then."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def advance(share: float, what: str) -> None:
            bar.update(task, completed=share, description=Text(what).markup)

        yield advance


class _Lines:
    """Progress as lines of text: one when enough was done since the last."""

    def __init__(self) -> None:
        self._told = -1.0

    def __call__(self, share: float, what: str) -> None:
        if share < 1 and share - self._told < _LINE_EVERY:
            return
        if share > self._told:
            self._told = share
            talk(f"{share:4.0%}  {what}")


def _console(*, stderr: bool = False) -> Console:
    # Made each time, because sys.stdout may have been exchanged meanwhile.
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def _plain(value: object) -> str:
    """What JSON has no type for."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
