"""One tiny trained model for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.training import samples
from training import bundle, predictor, train
from training.datasets import windows
from training.datasets.assemble import Dataset
from training.predictor import Predictor
from training.train import Bundle


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    return samples.dataset()


@pytest.fixture(scope="session")
def tiny_model(tiny_dataset: Dataset) -> Bundle:
    return train.fit(tiny_dataset, samples.TINY)


@pytest.fixture
def bundle_dir(tiny_model: Bundle, tmp_path: Path) -> Path:
    """A freshly written bundle that a test may spoil."""
    return bundle.write(tmp_path / "tiny model", tiny_model.files, tiny_model.manifest)


@pytest.fixture(scope="session")
def tiny_predictor(tiny_model: Bundle) -> Predictor:
    return predictor.from_files(tiny_model.files, tiny_model.manifest, "tiny", "1")


@pytest.fixture(scope="session")
def histories(tiny_dataset: Dataset) -> NDArray[np.float32]:
    """Forty full windows (40, 16, 4) of raw features."""
    return windows.gather(tiny_dataset.values, tiny_dataset.first, np.arange(700, 740), samples.TINY.window)
