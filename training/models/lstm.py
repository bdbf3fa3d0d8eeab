"""Recurrent network over a window; absent rows in front are zeros with an observed share of 0."""

from __future__ import annotations

import torch
from torch import nn

from training.config import LstmConfig


class Lstm(nn.Module):
    """(N, window, channels) -> standardised return (N,)."""

    def __init__(self, channels: int, config: LstmConfig) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(channels, config.hidden, config.layers, batch_first=True)
        self.head = nn.Sequential(
            nn.LayerNorm(config.hidden), nn.Dropout(config.dropout), nn.Linear(config.hidden, 1)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Standardised return (N,) of encoded windows (N, window, channels)."""
        states, _ = self.recurrent(rows)  # (N, window, hidden)
        z: torch.Tensor = self.head(states[:, -1])  # (N, 1)
        return z[:, 0]
