"""What a user types: `curl` against the running API."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What curl got."""

    status: int
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


def curl(*arguments: str) -> Answer:
    """Run `curl -s` with these arguments, as written in the documentation."""
    marked = "%{stderr}%{http_code} %{content_type}"
    done = subprocess.run(
        ["curl", "-s", "-w", marked, "--max-time", "120", *arguments],
        capture_output=True,
        check=True,
        timeout=130,
    )
    status, _, content_type = done.stderr.decode().partition(" ")
    return Answer(int(status), content_type.split(";")[0], done.stdout)
