"""Networks as ONNX graphs with a free batch size, checked against torch."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from cluster.errors import BundleRejected

OPSET = 17
PARITY = 1e-5


def to_onnx(network: nn.Module, window: int, channels: int) -> bytes:
    """The graph: `rows` (n, window, channels) float32 -> `z` (n,). BundleRejected when it does not agree.

    Uses torch's TorchScript exporter: for nets of this size it takes 0.4 s where the newer one takes 6 s and
    leaves the same operators; parity is checked below in either case.
    """
    example = torch.zeros(2, window, channels)
    buffer: Any = io.BytesIO()  # the annotation of `export` knows paths only; the older exporter takes both
    with warnings.catch_warnings():
        # It warns that it is the older exporter, and about the batch size of an LSTM: see the parity check.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.cpu().eval(),
            (example,),
            buffer,
            input_names=["rows"],
            output_names=["z"],
            dynamic_axes={"rows": {0: "n"}, "z": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
    graph: bytes = buffer.getvalue()
    _check_parity(network, graph, window, channels)
    return graph


@torch.inference_mode()
def _check_parity(network: nn.Module, graph: bytes, window: int, channels: int) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3, 64):
        rows = torch.randn(count, window, channels, generator=generator)
        rows[:, : window // 2] *= (torch.arange(count) % 2)[
            :, None, None
        ]  # every other one is a short history
        [z] = session.run(["z"], {"rows": rows.numpy()})
        gap = float(np.abs(z - network(rows).numpy()).max())
        if not gap <= PARITY:
            raise BundleRejected(
                f"exported graph differs from torch by {gap:.1e} (batch {count}); limit {PARITY}"
            )
