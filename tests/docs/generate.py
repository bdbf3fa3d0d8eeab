"""Write the generated blocks of the reference pages: `python -m tests.docs.generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.docs import pages
from tests.docs.render import cli, http, metrics, settings

BLOCKS: dict[tuple[Path, str], Callable[[], str]] = {
    (pages.REFERENCE / "settings.md", "settings"): settings.settings,
    (pages.REFERENCE / "settings.md", "profiles"): settings.profiles,
    (pages.REFERENCE / "metrics.md", "process metrics"): metrics.process_metrics,
    (pages.REFERENCE / "metrics.md", "state metrics"): metrics.state_metrics,
    (pages.REFERENCE / "http.md", "paths"): http.paths,
    (pages.REFERENCE / "http.md", "details"): http.details,
    (pages.REFERENCE / "http.md", "bodies"): http.bodies,
    (pages.REFERENCE / "cli.md", "commands"): cli.overview,
    (pages.REFERENCE / "cli.md", "options"): cli.options,
    (pages.REFERENCE / "cli.md", "command details"): cli.details,
}
"""Page and name of every generated block, and what makes it."""


def main() -> None:
    """Bring every block up to date."""
    for (page, name), render in BLOCKS.items():
        pages.replace_block(page, name, render())


if __name__ == "__main__":
    main()
