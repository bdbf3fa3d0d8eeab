"""Training configurations: `configs/models/<name>.yaml` as frozen, checked values."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitConfig(_Frozen):
    """Shares of time, number of out-of-fold stretches, and bars kept free around every cut."""

    train: Share = 0.70
    calibration: Share = 0.15
    folds: Count = 2
    embargo: Count = 5


class XgboostConfig(_Frozen):
    """Gradient boosting on one row."""

    rounds: Count = 150
    depth: Count = 4
    eta: Positive = 0.03
    subsample: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    colsample: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    min_child_weight: Positive = 200.0
    max_bin: Annotated[int, Field(ge=2)] = 256


class LstmConfig(_Frozen):
    """Recurrent network: layers x hidden."""

    hidden: Count = 64
    layers: Count = 2
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1


class TransformerConfig(_Frozen):
    """Patch transformer: window / patch tokens of `width`."""

    width: Count = 64
    heads: Count = 4
    blocks: Count = 3
    patch: Count = 8
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1


class FittingConfig(_Frozen):
    """The loop that trains both networks. `full_share` of the samples see their whole window, the others a
    random number of newest rows, so that any history from one row on is legal at serving time."""

    epochs: Count = 12
    batch: Count = 1024
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    full_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    device: Literal["cpu", "cuda"] = "cpu"


class TrainConfig(_Frozen):
    """Everything a training run depends on besides its data."""

    window: Count = 64
    coverage: Share = 0.90
    seed: int = 7
    ridge: Positive = 0.1
    selection_rounds: Count = 100
    golden_windows: Count = 200
    threads: Count = 1
    split: SplitConfig = SplitConfig()
    xgboost: XgboostConfig = XgboostConfig()
    lstm: LstmConfig = LstmConfig()
    transformer: TransformerConfig = TransformerConfig()
    fitting: FittingConfig = FittingConfig()


def load(name_or_path: str | Path) -> TrainConfig:
    """The configuration of a name (`small`, `standard`) or YAML file; ConfigError names a wrong key."""
    path = Path(name_or_path)
    source = path if path.suffix else resources.files("configs.models").joinpath(f"{name_or_path}.yaml")
    try:
        return TrainConfig.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")) or {})
    except FileNotFoundError as error:
        raise ConfigError(f"no model configuration {source}; there are `small` and `standard`") from error
    except ValidationError as error:
        raise ConfigError(f"{source}: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])} = {problem['input']!r}: {problem['msg']}"
        for problem in error.errors()
    )
