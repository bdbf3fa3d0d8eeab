"""A trained model as a directory of plain data files, and the checks before any of them is used.

Nothing here executes: UBJSON, safetensors, ONNX and JSON only. A file is read once, and what was verified is
what gets parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from cluster.errors import BundleRejected

FORMAT = 1
MANIFEST = "manifest.json"
FILES = (
    "xgboost_optimized.ubj",
    "lstm_optimized.safetensors",
    "lstm_optimized_config.json",
    "lstm_optimized.onnx",
    "transformer_optimized.safetensors",
    "transformer_optimized_config.json",
    "transformer_optimized.onnx",
    "ensemble_optimized.json",
    "feature_names.json",
    "scaler.json",
    "report.json",
    "golden.safetensors",
)
"""Every file of a bundle besides its manifest; nothing else in the directory is ever opened."""

MAX_FILE_BYTES = 256 * 2**20
MAX_MANIFEST_BYTES = 2**20
LIBRARIES = (
    "numpy",
    "torch",
    "xgboost",
    "xgboost-cpu",
    "onnx",
    "onnxruntime",
    "safetensors",
    "TA-Lib",
    "PyWavelets",
)


def json_bytes(value: object) -> bytes:
    """JSON whose numbers round-trip float64, the same bytes for the same value."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that a model depends on."""
    installed = {}
    for library in LIBRARIES:
        try:
            installed[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue  # xgboost comes under one of two names
    return installed


def manifest_of(files: Mapping[str, bytes], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest: `facts` about the training plus sha256 and size of every file."""
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in sorted(files.items())
    }
    return {"format": FORMAT, "libraries": library_versions(), **facts, "files": entries}


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Twelve hex digits that name this manifest, and through its hashes all files."""
    return hashlib.sha256(json_bytes(manifest)).hexdigest()[:12]


def write(directory: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> Path:
    """Write a bundle so that `directory` holds either all of it or what it held before."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, content in {**files, MANIFEST: json_bytes(manifest)}.items():
            _write_durably(staging / name, content)
        _replace(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def read(directory: Path, feature_digest: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Verified file contents by name, and the manifest. BundleRejected says which check failed.

    In this order: manifest and format, the set of files, then for each file: inside the directory, a regular
    file and no link, size, sha256, magic bytes; last the feature set.
    """
    manifest = _parse_manifest(_read_file(directory, MANIFEST, MAX_MANIFEST_BYTES))
    entries = manifest["files"]
    if set(entries) != set(FILES):
        raise BundleRejected(f"{directory}: the manifest lists {sorted(entries)}, expected {sorted(FILES)}")
    files = {name: _verified(directory, name, entries[name]) for name in FILES}
    if manifest["features"]["digest"] != feature_digest:
        raise BundleRejected(
            f"{directory}: trained on feature set {manifest['features']['digest']}, this program computes "
            f"{feature_digest}; train again with `finsight train`"
        )
    return files, manifest


def _parse_manifest(content: bytes) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(content)
        usable = manifest["format"] == FORMAT and all("sha256" in e for e in manifest["files"].values())
        usable = usable and isinstance(manifest["features"]["digest"], str)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleRejected(f"{MANIFEST} cannot be read: {error!r}") from error
    if not usable:
        raise BundleRejected(
            f"{MANIFEST} has format {manifest['format']!r}, expected {FORMAT} with file hashes"
        )
    return manifest


def _verified(directory: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    content = _read_file(directory, name, MAX_FILE_BYTES)
    if len(content) != entry.get("size"):
        raise BundleRejected(f"{name} has {len(content)} bytes, the manifest says {entry.get('size')}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry["sha256"]:
        raise BundleRejected(f"{name} has sha256 {digest}, the manifest says {entry['sha256']}")
    if not _MAGIC[Path(name).suffix](content):
        raise BundleRejected(f"{name} is not a {Path(name).suffix} file by its content")
    return content


def _read_file(directory: Path, name: str, limit: int) -> bytes:
    path = directory / name
    try:
        # O_NOFOLLOW and fstat on the open file: what is checked is what is read. O_NONBLOCK: a FIFO
        # in its place cannot hang the load.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise BundleRejected(f"{path} is missing or a link: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise BundleRejected(f"{path} is not a regular file of at most {limit} bytes")
        return file.read(limit + 1)


def _is_safetensors(content: bytes) -> bool:
    header_size = int.from_bytes(content[:8], "little")
    return 2 <= header_size <= len(content) - 8 and content[8:9] == b"{"


def _is_onnx(content: bytes) -> bool:
    """Field 1 (ir_version) comes first; tensors kept in other files carry the key `location`."""
    return content[:1] == b"\x08" and b"location" not in content


_MAGIC: dict[str, Callable[[bytes], bool]] = {
    ".ubj": lambda content: content[:1] == b"{" and b"learner" in content[:64],
    ".safetensors": _is_safetensors,
    ".onnx": _is_onnx,
    ".json": lambda content: content[:1] in {b"{", b"["},
}


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(staging: Path, directory: Path) -> None:
    staging.chmod(0o755)
    _sync_directory(staging)
    if directory.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.old.", dir=directory.parent))
        directory.rename(old / directory.name)
        staging.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(directory)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
