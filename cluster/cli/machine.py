"""What FinSight needs of the machine: Python, packages, memory, disk, and ports to listen on."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from cluster.cli.finding import Finding

if TYPE_CHECKING:
    from cluster.settings import Settings

_GIB = 2**30
_MEMORY_BYTES = 3 * _GIB  # what an idle instance takes
_DISK_BYTES = 2 * _GIB  # data of the sample provider, models, logs
_INSTALL = "install again: make setup"
_ANY_OF = (("torch",), ("xgboost-cpu", "xgboost"))
"""Packages of the extras `cpu` and `gpu`: one of each group must be there."""

_PORTS: tuple[tuple[Literal["api", "dashboard", "mlflow", "metrics"], str], ...] = (
    ("api", "HTTP API"),
    ("dashboard", "Ray dashboard"),
    ("mlflow", "MLflow"),
    ("metrics", "node metrics"),
)


def installation() -> list[Finding]:
    """Python and the packages that FinSight pins."""
    return [_python(), _packages()]


def resources(settings: Settings) -> list[Finding]:
    """The home folder, disk, memory and shared memory."""
    return [
        _home(settings.home),
        disk(settings.home),
        _memory(),
        shared_memory(settings.object_store_bytes, Path("/dev/shm")),  # noqa: S108 - looked at, not written
    ]


def ports(settings: Settings) -> list[Finding]:
    """Whether each port is free, or held by the instance of this home, or by whom else."""
    from cluster.local.instance import Instance

    own = {process.pid for process in Instance(settings.home).processes()}
    return [port(settings.port(part), name, f"FINSIGHT_{part.upper()}_PORT", own) for part, name in _PORTS]


def port(number: int, name: str, setting: str, own: set[int]) -> Finding:
    """What holds port `number`, if anything; `own` are the processes of the instance."""
    from cluster.ports import holder, is_free

    what = f"port {number} ({name})"
    if is_free(number):
        return Finding(what, "ok", "free")
    if _listeners(number) & own:
        return Finding(what, "ok", "this instance listens")
    remedy = f"stop it, or move the port by {setting}, or all ports by FINSIGHT_PORT_OFFSET=100"
    return Finding(what, "failed", f"taken by {holder(number)}", remedy)


def _listeners(number: int) -> set[int | None]:
    return {
        each.pid
        for each in psutil.net_connections(kind="tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == number
    }


def _python() -> Finding:
    version = platform.python_version()
    if version.startswith("3.11."):
        return Finding("python", "ok", f"{version} at {sys.executable}")
    return Finding("python", "failed", version, "FinSight needs Python 3.11: make setup PYTHON=python3.11")


def _packages() -> Finding:
    required = metadata.requires("finsight") or []
    wrong = [text for text in map(_wrong, required) if text]
    wrong += [
        f"{' or '.join(names)} is missing" for names in _ANY_OF if not any(_version(name) for name in names)
    ]
    if wrong:
        return Finding("packages", "failed", "; ".join(wrong), _INSTALL)
    return Finding("packages", "ok", f"finsight {metadata.version('finsight')} and all that it pins")


def _wrong(requirement: str) -> str | None:
    """What is wrong with one requirement of ours; those of extras are not looked at."""
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return None
    found = _version(wanted.name)
    if found is None:
        return f"{wanted.name} is missing"
    return None if wanted.specifier.contains(found) else f"{wanted.name} is {found}, not {wanted.specifier}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _home(home: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=_existing(home)):
            return Finding("home", "ok", f"{home} can be written")
    except OSError as error:
        return Finding("home", "failed", f"{home}: {error.strerror}", "choose another by FINSIGHT_HOME")


def disk(home: Path) -> Finding:
    """Room on the disk that holds `home`, which need not exist yet."""
    free = shutil.disk_usage(_existing(home)).free
    if free >= _DISK_BYTES:
        return Finding("disk", "ok", f"{_gib(free)} free for {home}")
    remedy = f"make room, at least {_gib(_DISK_BYTES)}, or choose another disk by FINSIGHT_HOME"
    return Finding("disk", "failed", f"{_gib(free)} free for {home}", remedy)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    detail = f"{_gib(memory.available)} of {_gib(memory.total)} available, {psutil.cpu_count()} cores"
    if memory.total < _MEMORY_BYTES:
        return Finding("memory", "warning", detail, f"an instance takes about {_gib(_MEMORY_BYTES)}")
    return Finding("memory", "ok", detail)


def shared_memory(needed_bytes: int, folder: Path) -> Finding:
    """Room for Ray's object store of `needed_bytes` in `folder`, the system's shared memory."""
    if not folder.is_dir():
        return Finding("shared memory", "warning", f"there is no {folder}", "Ray uses files, which is slower")
    total = shutil.disk_usage(folder).total
    if total >= needed_bytes:
        return Finding("shared memory", "ok", f"{_gib(total)} at {folder}")
    remedy = f"give {folder} at least {_gib(needed_bytes)} (docker run --shm-size), or Ray uses slower files"
    return Finding("shared memory", "warning", f"{_gib(total)} at {folder}", remedy)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB"
