from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ConfigError
from training import config


@pytest.mark.parametrize("name", ["small", "standard"])
def test_the_shipped_configurations_are_valid_and_have_the_served_window(name: str) -> None:
    loaded = config.load(name)

    assert loaded.window == 64
    assert loaded.coverage == 0.9
    assert loaded.window % loaded.transformer.patch == 0


def test_a_wrong_value_is_named_with_key_value_and_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("fitting: {epochs: 0}\nlstm: {hiden: 3}\n")

    with pytest.raises(ConfigError, match=r"mine\.yaml: .*lstm\.hiden = 3") as caught:
        config.load(path)

    assert "fitting.epochs = 0: Input should be greater than or equal to 1" in str(caught.value)


def test_an_unknown_name_says_which_ones_there_are() -> None:
    with pytest.raises(ConfigError, match="`small` and `standard`"):
        config.load("huge")
