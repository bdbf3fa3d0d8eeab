from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

from cluster.errors import BundleRejected
from tests.unit.training import samples
from training import bundle, predictor
from training.predictor import Predictor
from training.train import Bundle


def load(directory: Path) -> Predictor:
    return predictor.load(directory, feature_digest=samples.DIGEST)


def replace(directory: Path, name: str, content: bytes) -> None:
    """Put other content in place with a manifest that agrees, as somebody who can write there would."""
    (directory / name).write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_bytes())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (directory / "manifest.json").write_bytes(bundle.json_bytes(manifest))


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_a_written_bundle_loads_and_forecasts_as_before(
    bundle_dir: Path, tiny_predictor: Predictor, histories: np.ndarray[Any, np.dtype[np.float32]]
) -> None:
    loaded = load(bundle_dir)

    assert (loaded.name, len(loaded.version)) == ("tiny model", 12)
    np.testing.assert_array_equal(loaded.predict(histories).mean, tiny_predictor.predict(histories).mean)


def test_writing_again_replaces_all_and_leaves_nothing_behind(bundle_dir: Path, tiny_model: Bundle) -> None:
    (bundle_dir / "stale.txt").write_text("old")

    bundle.write(bundle_dir, tiny_model.files, tiny_model.manifest)

    assert not (bundle_dir / "stale.txt").exists()
    assert [path.name for path in bundle_dir.parent.iterdir()] == [bundle_dir.name]
    load(bundle_dir)


def test_a_write_that_fails_keeps_the_old_bundle(
    bundle_dir: Path, tiny_model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        bundle.write(bundle_dir, {**tiny_model.files, "scaler.json": b"{}"}, tiny_model.manifest)

    assert [path.name for path in bundle_dir.parent.iterdir()] == [bundle_dir.name]
    load(bundle_dir)


@pytest.mark.parametrize("name", bundle.FILES)
def test_a_changed_byte_is_found_in_every_file(bundle_dir: Path, name: str) -> None:
    content = bytearray((bundle_dir / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_dir / name).write_bytes(bytes(content))

    with pytest.raises(BundleRejected, match=f"{name} has sha256"):
        load(bundle_dir)


@pytest.mark.parametrize("name", bundle.FILES)
def test_a_truncated_file_is_refused(bundle_dir: Path, name: str) -> None:
    content = (bundle_dir / name).read_bytes()
    (bundle_dir / name).write_bytes(content[:-1])

    with pytest.raises(BundleRejected, match=f"{name} has {len(content) - 1} bytes"):
        load(bundle_dir)


def test_a_missing_file_is_refused(bundle_dir: Path) -> None:
    (bundle_dir / "scaler.json").unlink()

    with pytest.raises(BundleRejected, match=r"scaler\.json is missing or a link"):
        load(bundle_dir)


def test_a_link_is_refused_even_to_the_right_content(bundle_dir: Path) -> None:
    target = bundle_dir.parent / "elsewhere.json"
    (bundle_dir / "scaler.json").rename(target)
    (bundle_dir / "scaler.json").symlink_to(target)

    with pytest.raises(BundleRejected, match=r"scaler\.json is missing or a link"):
        load(bundle_dir)


def test_a_fifo_in_place_of_a_file_does_not_hang_the_load(bundle_dir: Path) -> None:
    (bundle_dir / "scaler.json").unlink()
    os.mkfifo(bundle_dir / "scaler.json")

    with pytest.raises(BundleRejected, match="not a regular file"):
        load(bundle_dir)


@pytest.mark.parametrize("name", ["../scaler.json", "/etc/passwd", "extra.pkl"])
def test_a_manifest_cannot_name_other_files(bundle_dir: Path, name: str) -> None:
    manifest = json.loads((bundle_dir / "manifest.json").read_bytes())
    manifest["files"][name] = manifest["files"]["scaler.json"]
    (bundle_dir / "manifest.json").write_bytes(bundle.json_bytes(manifest))

    with pytest.raises(BundleRejected, match="the manifest lists"):
        load(bundle_dir)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"format": 1, "files": {}}', b'{"format": 1, "files": 3}']
)
def test_a_manifest_that_is_none_is_refused(bundle_dir: Path, content: bytes) -> None:
    (bundle_dir / "manifest.json").write_bytes(content)

    with pytest.raises(BundleRejected, match=r"manifest\.json"):
        load(bundle_dir)


def test_a_manifest_of_another_format_is_refused(bundle_dir: Path, tiny_model: Bundle) -> None:
    (bundle_dir / "manifest.json").write_bytes(bundle.json_bytes({**tiny_model.manifest, "format": 2}))

    with pytest.raises(BundleRejected, match="format 2, expected 1"):
        load(bundle_dir)


@pytest.mark.parametrize("name", bundle.FILES)
def test_a_pickle_under_any_name_is_refused_and_never_run(
    bundle_dir: Path, tmp_path: Path, name: str
) -> None:
    trace = tmp_path / "it ran"
    replace(bundle_dir, name, pickle.dumps(Bomb(trace)))

    with pytest.raises(BundleRejected, match=r"not a .* file by its content"):
        load(bundle_dir)

    assert not trace.exists()


def test_another_feature_set_is_refused_with_the_remedy(bundle_dir: Path) -> None:
    with pytest.raises(BundleRejected, match=r"feature set 0123456789abcdef.*feedface.*finsight train"):
        predictor.load(bundle_dir, feature_digest="feedface")


def test_a_safetensors_header_of_absurd_size_is_refused(bundle_dir: Path) -> None:
    replace(bundle_dir, "lstm_optimized.safetensors", struct.pack("<Q", 2**63) + b"{}")

    with pytest.raises(BundleRejected, match=r"not a \.safetensors file"):
        load(bundle_dir)


def test_an_onnx_graph_that_reads_other_files_is_refused(bundle_dir: Path) -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])
    tensor.raw_data = b"\0\0\0\0"
    set_external_data(tensor, "../../etc/passwd")
    tensor.ClearField("raw_data")
    graph = helper.make_graph([], "g", [], [], [tensor])
    replace(bundle_dir, "lstm_optimized.onnx", onnx.ModelProto(ir_version=8, graph=graph).SerializeToString())

    with pytest.raises(BundleRejected, match=r"not a \.onnx file"):
        load(bundle_dir)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("xgboost_optimized.ubj", b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{"),
        ("lstm_optimized.onnx", b"\x08\x08"),
        ("scaler.json", b"{}"),
        ("ensemble_optimized.json", b'{"weights": {}}'),
    ],
)
def test_content_that_cannot_be_parsed_is_refused(bundle_dir: Path, name: str, content: bytes) -> None:
    replace(bundle_dir, name, content)

    with pytest.raises(BundleRejected, match="a file cannot be used"):
        load(bundle_dir)


def test_a_model_that_forecasts_otherwise_than_stored_gets_no_traffic(bundle_dir: Path) -> None:
    scaler = json.loads((bundle_dir / "scaler.json").read_bytes())
    scaler["center"][0] += 0.5
    replace(bundle_dir, "scaler.json", bundle.json_bytes(scaler))

    with pytest.raises(BundleRejected, match=r"differs by .* from its stored forecasts"):
        load(bundle_dir)


def test_stored_forecasts_of_another_shape_are_refused(bundle_dir: Path) -> None:
    wrong = safetensors.numpy.save({"windows": np.zeros((2, 16, 9), np.float32)})
    replace(bundle_dir, "golden.safetensors", wrong)

    with pytest.raises(BundleRejected, match="stored forecasts cannot be checked"):
        load(bundle_dir)
