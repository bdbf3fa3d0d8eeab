"""A path of this Python that needs no quotes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def plain(folder: Path) -> str:
    """`sys.executable`; by way of a link in `folder` when it has a space or another sign of the shell in it.

    Ray puts the interpreter's path into a shell command as it stands (`RuntimeEnvContext.exec_worker`), so
    from a checkout in "my clone" no actor with an environment of its own would start, and no job.
    """
    executable = Path(sys.executable)
    if shlex.quote(sys.executable) == sys.executable:
        return sys.executable
    link = folder / "python"
    link.unlink(missing_ok=True)
    link.symlink_to(executable.parent.parent)
    return str(link / executable.parent.name / executable.name)
