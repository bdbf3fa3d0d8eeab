"""Patch transformer (after PatchTST, arXiv 2211.14730): neighbouring rows form a token."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from training.config import TransformerConfig


class Block(nn.Module):
    """Pre-norm self-attention and a GELU layer of four times the width."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.before_attention = nn.LayerNorm(config.width)
        self.project = nn.Linear(config.width, 3 * config.width)
        self.merge = nn.Linear(config.width, config.width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.Linear(config.width, 4 * config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(4 * config.width, config.width),
        )

    def forward(self, tokens: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Tokens (N, T, width) after attention to the tokens that are `seen` (N, 1, 1, T)."""
        tokens = tokens + self.merge(self._attend(self.before_attention(tokens), seen))
        update: torch.Tensor = self.feed_forward(tokens)
        return tokens + update

    def _attend(self, tokens: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        count, length, width = tokens.shape
        packed = self.project(tokens).view(count, length, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)  # each (N, heads, T, width / heads)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return mixed.transpose(1, 2).reshape(count, length, width)


class Transformer(nn.Module):
    """(N, window, channels) -> standardised return (N,); window must be a multiple of the patch."""

    newest: torch.Tensor

    def __init__(self, channels: int, window: int, config: TransformerConfig) -> None:
        super().__init__()
        if window % config.patch or config.width % config.heads:
            raise ValueError(
                f"window {window} must be a multiple of patch {config.patch}, "
                f"width {config.width} of heads {config.heads}"
            )
        self.patch = config.patch
        self.tokens = window // config.patch
        self.embed = nn.Linear(channels * config.patch, config.width)
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, config.width))
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.blocks)])
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(self.tokens * config.width, 1))
        newest = torch.zeros(self.tokens, dtype=torch.bool)
        newest[-1] = True
        self.register_buffer("newest", newest, persistent=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Standardised return (N,) of encoded windows; tokens without an observed row take no part."""
        patches = rows.reshape(
            rows.shape[0], self.tokens, self.patch, rows.shape[2]
        )  # (N, T, patch, channels)
        # The newest token is always seen: attention over nothing would be NaN.
        seen = (patches[..., -1].amax(dim=2) > 0) | self.newest  # (N, T)
        tokens = self.embed(patches.flatten(2)) + self.position  # (N, T, width)
        for block in self.blocks:
            tokens = block(tokens, seen[:, None, None, :])
        flat = (self.norm(tokens) * seen[:, :, None]).flatten(1)  # (N, T * width)
        z: torch.Tensor = self.head(flat)  # (N, 1)
        return z[:, 0]
