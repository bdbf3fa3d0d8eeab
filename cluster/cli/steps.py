"""The steps of a start or a stop on stderr: a moving line on a terminal, else one line a finished step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console as Rich
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cluster.cli.terminal import talk
from cluster.local.console import Console

_TOTAL = "total"


class _Lines:
    """For files and pipes."""

    def __init__(self) -> None:
        self._told = 0.0

    def working(self, what: str) -> None:
        """Nothing is written before it is done."""
        self._told = 0.0
        if what.startswith("waiting"):
            talk(what)

    def progress(self, what: str, share: float) -> None:
        """A line for every quarter."""
        if share >= self._told + 0.25:
            self._told = share
            talk(f"  {share:4.0%} {what}")

    def done(self, what: str, seconds: float) -> None:
        """A line with the duration."""
        talk(f"ok {seconds:6.1f} s  {what}")


class _Bar(_Lines):
    """For a terminal."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("", total=1.0)

    def working(self, what: str) -> None:
        """The bar starts anew."""
        if what != _TOTAL:
            self._bar.reset(self._task, total=None, description=what)

    def progress(self, what: str, share: float) -> None:
        """The bar moves."""
        self._bar.update(self._task, total=1.0, completed=share, description=what)

    def done(self, what: str, seconds: float) -> None:
        """What is done stays above the bar."""
        self._bar.console.print(f"[green]✓[/] {what} [dim]{seconds:.1f} s[/]", highlight=False)


@contextmanager
def steps() -> Iterator[Console]:
    """Where to tell the steps, as long as the block lasts."""
    console = Rich(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar)
