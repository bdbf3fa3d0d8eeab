from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.unit.training.samples import TINY
from training.datasets.windows import gather
from training.models import export, fitting, networks
from training.models.encoding import encode
from training.models.onnx_member import OnnxMember

KINDS = ["lstm", "transformer"]
FEATURES = 3


def network(kind: str) -> torch.nn.Module:
    torch.manual_seed(1)
    return networks.build(networks.architecture(kind, FEATURES, TINY)).eval()


def test_an_incomplete_row_says_how_much_of_it_was_observed() -> None:
    row = np.array([[1.5, np.nan, 2.0, np.nan], [np.nan] * 4], np.float32)

    assert encode(row).tolist() == [[1.5, 0.0, 2.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", range(1, TINY.window + 1))
def test_every_history_length_gives_a_finite_forecast(kind: str, length: int) -> None:
    windows = np.random.default_rng(0).standard_normal((2, TINY.window, FEATURES)).astype(np.float32)
    windows[:, : TINY.window - length] = np.nan

    answer = network(kind)(torch.from_numpy(encode(windows)))

    assert torch.isfinite(answer).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_graph_takes_any_batch_and_agrees_with_torch(kind: str) -> None:
    trained = network(kind)
    member = OnnxMember(export.to_onnx(trained, TINY.window, FEATURES + 1))
    windows = np.random.default_rng(0).standard_normal((50, TINY.window, FEATURES)).astype(np.float32)
    windows[::3, :9] = np.nan

    with torch.inference_mode():
        expected = trained(torch.from_numpy(encode(windows))).numpy()

    np.testing.assert_allclose(member.predict(windows), expected, atol=1e-5)
    np.testing.assert_allclose(member.predict(windows[:1]), expected[:1], atol=1e-5)
    assert member.predict(windows[:0]).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_safetensors_and_json_restore_the_network(kind: str) -> None:
    trained = network(kind)
    rows = torch.randn(4, TINY.window, FEATURES + 1)

    restored = networks.build(networks.architecture(kind, FEATURES, TINY)).eval()
    restored.load_state_dict(safetensors.torch.load(networks.weights(trained)))

    torch.testing.assert_close(restored(rows), trained(rows), rtol=0, atol=0)


def test_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'os\.system'"):
        networks.build({"kind": "os.system", "channels": 2, "window": 4})


def test_a_window_that_does_not_hold_whole_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of patch"):
        networks.build({**networks.architecture("transformer", 3, TINY), "window": 15})


def test_windows_on_the_device_are_the_encoded_windows_of_the_dataset() -> None:
    values = np.random.default_rng(0).standard_normal((9, 2)).astype(np.float32)
    values[4, 1] = np.nan
    first = np.array([0, 0, 0, 0, 4, 4, 4, 4, 4], dtype=np.int64)
    ends, lengths = np.array([1, 4, 8]), np.array([2, 3, 2])

    source = fitting.WindowSource(values, first, 3, "cpu")
    gathered = source.gather(torch.from_numpy(ends), torch.from_numpy(lengths))

    np.testing.assert_array_equal(gathered.numpy(), encode(gather(values, first, ends, 3, lengths)))


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_a_plain_signal_and_reports_every_epoch(kind: str) -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((600, FEATURES)).astype(np.float32)
    z = np.clip(values[:, 0].astype(np.float64), -3, 3)
    source = fitting.WindowSource(values, np.zeros(600, np.int64), TINY.window, "cpu")
    config = TINY.fitting.model_copy(update={"epochs": 12, "batch": 50, "learning_rate": 0.02})
    losses: list[float] = []

    fitting.train(
        networks.architecture(kind, FEATURES, TINY),
        source,
        np.arange(600),
        z,
        config,
        seed=1,
        on_epoch=lambda _epoch, loss: losses.append(loss),
    )

    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]


def test_the_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    values = np.random.default_rng(0).standard_normal((200, FEATURES)).astype(np.float32)
    source = fitting.WindowSource(values, np.zeros(200, np.int64), TINY.window, "cpu")

    def train(seed: int) -> bytes:
        description = networks.architecture("lstm", FEATURES, TINY)
        ends, z = np.arange(200), values[:, 0].astype(np.float64)
        return networks.weights(fitting.train(description, source, ends, z, TINY.fitting, seed=seed))

    state = torch.random.get_rng_state()
    assert train(1) == train(1) != train(2)
    assert torch.equal(torch.random.get_rng_state(), state)
