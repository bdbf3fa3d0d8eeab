"""A whole FinSight for a benchmark: a home folder and ports of its own, driven by its command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.ports import free_port


@contextmanager
def fresh_home() -> Iterator[dict[str, str]]:
    """The environment of commands on an empty home folder; what they start is stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="finsight-bench-"))
    ports = {f"FINSIGHT_{name}_PORT": str(free_port()) for name in ("API", "DASHBOARD", "MLFLOW", "METRICS")}
    environment = {**os.environ, **ports, "FINSIGHT_HOME": str(home)}
    try:
        yield environment
    finally:
        finsight(environment, "down")
        shutil.rmtree(home, ignore_errors=True)


def finsight(environment: dict[str, str], command: str) -> Any:
    """Run `finsight COMMAND --json`; its answer. Its talk goes to our standard error."""
    program = [str(Path(sys.executable).parent / "finsight"), command, "--json"]
    done = subprocess.run(program, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)
