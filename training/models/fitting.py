"""The one loop that trains a network.

The encoded matrix goes to the device once; a batch is gathered there by row number, so windows are never
stored. Every epoch shuffles with the given seed and drops the last partial batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import huber_loss

from training.config import FittingConfig
from training.models import networks
from training.models.encoding import encode

Rows = NDArray[np.int64]


class WindowSource:
    """Encoded rows (R, F + 1) on a device and how windows are gathered from them."""

    def __init__(self, scaled: NDArray[np.float32], first: Rows, window: int, device: str) -> None:
        encoded = torch.from_numpy(encode(scaled))
        blank = torch.zeros(1, encoded.shape[1])
        self._rows = torch.cat([encoded, blank]).to(device)  # row -1 stands for "no such row"
        self._first = torch.tensor(first).to(device)
        self._offsets = torch.arange(1 - window, 1, device=device)
        self.window, self.device = window, device

    def gather(self, ends: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Windows (N, window, F + 1) that end at `ends` (N,), cut to their newest `lengths` rows."""
        rows = ends[:, None] + self._offsets
        oldest = self._first[ends]
        if lengths is not None:
            oldest = torch.maximum(oldest, ends - lengths + 1)
        return self._rows[torch.where(rows < oldest[:, None], -1, rows)]


def train(
    description: dict[str, Any],
    source: WindowSource,
    ends: Rows,
    z: NDArray[np.float64],
    config: FittingConfig,
    *,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train on the windows that end at `ends` (N,) towards `z` (N,); calls `on_epoch(epoch, mean loss)`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = networks.build(description).to(source.device).train()
        generator = torch.Generator(source.device).manual_seed(seed)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        rows = torch.tensor(ends).to(source.device)
        goals = torch.from_numpy(z.astype(np.float32)).to(source.device)
        for epoch in range(config.epochs):
            loss = _epoch(network, optimizer, source, rows, goals, config, generator)
            if on_epoch is not None:
                on_epoch(epoch, loss)
    return network.eval()


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    source: WindowSource,
    rows: torch.Tensor,
    goals: torch.Tensor,
    config: FittingConfig,
    generator: torch.Generator,
) -> float:
    total = torch.zeros((), device=source.device)  # read once an epoch: one synchronisation with the device
    batches = list(_batches(len(rows), config.batch, generator))
    for batch in batches:
        lengths = _random_lengths(len(batch), source.window, config.full_share, generator)
        forecast = network(source.gather(rows[batch], lengths))
        loss = huber_loss(forecast, goals[batch])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        total += loss.detach()
    return float(total) / len(batches)


def _batches(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    order = torch.randperm(count, generator=generator, device=generator.device)
    size = min(size, count)
    yield from torch.split(order[: count // size * size], size)


def _random_lengths(count: int, window: int, full_share: float, generator: torch.Generator) -> torch.Tensor:
    """Rows to keep of each window: all of them with probability `full_share`, else 1..window uniformly."""
    device = generator.device
    lengths = torch.randint(1, window + 1, (count,), generator=generator, device=device)
    whole = torch.rand(count, generator=generator, device=device) < full_share
    return torch.where(whole, window, lengths)


@torch.inference_mode()
def predict(network: nn.Module, source: WindowSource, ends: Rows, batch: int = 4096) -> NDArray[np.float64]:
    """Standardised returns (N,) of the full windows that end at `ends`."""
    rows = torch.tensor(ends).to(source.device)
    parts = [network(source.gather(part)).double().cpu().numpy() for part in torch.split(rows, batch)]
    return np.concatenate(parts) if parts else np.zeros(0)


@contextmanager
def one_process_threads(threads: int) -> Iterator[None]:
    """Hold torch to `threads` threads: members are trained side by side, and one thread is reproducible."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
