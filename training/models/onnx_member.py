"""A network as an ONNX graph in ONNX Runtime, on one thread."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.models.encoding import encode

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class OnnxMember:
    """A trained network with input `rows` (n, window, F + 1) and output `z` (n,)."""

    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        [rows] = self._session.get_inputs()
        self.window, self.channels = int(rows.shape[1]), int(rows.shape[2])

    def predict(self, windows: Floats) -> Doubles:
        """Standardised return (N,) of scaled windows (N, window, F), NaN = unknown."""
        if len(windows) == 0:
            return np.zeros(0)
        [z] = self._session.run(["z"], {"rows": encode(windows)})
        return np.asarray(z, dtype=np.float64)
