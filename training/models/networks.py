"""Networks by name: build from a JSON architecture, weights to safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import nn

from training.config import LstmConfig, TrainConfig, TransformerConfig
from training.models.lstm import Lstm
from training.models.transformer import Transformer


def architecture(kind: str, features: int, config: TrainConfig) -> dict[str, Any]:
    """JSON description of a network of this kind (`lstm`, `transformer`); all that `build` needs."""
    sizes = {"lstm": config.lstm, "transformer": config.transformer}[kind]
    return {"kind": kind, "channels": features + 1, "window": config.window, **sizes.model_dump()}


def build(description: Mapping[str, Any]) -> nn.Module:
    """An untrained network, chosen by name from this table only, never by import path."""
    sizes = {key: value for key, value in description.items() if key not in {"kind", "channels", "window"}}
    channels = int(description["channels"])
    match description["kind"]:
        case "lstm":
            return Lstm(channels, LstmConfig.model_validate(sizes))
        case "transformer":
            window = int(description["window"])
            return Transformer(channels, window, TransformerConfig.model_validate(sizes))
        case kind:
            raise ValueError(f"unknown network {kind!r}: expected lstm or transformer")


def weights(network: nn.Module) -> bytes:
    """The network's parameters as safetensors."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return safetensors.torch.save(state)
