"""How networks see rows that may be incomplete or absent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def encode(scaled: Floats) -> Floats:
    """(..., F) with NaN -> (..., F + 1): NaN becomes 0, the last channel is the share of features observed.

    An absent row is all zeros, with share 0; a complete row has share 1.
    """
    known = np.isfinite(scaled)
    share = known.mean(axis=-1, keepdims=True, dtype=np.float32)
    return np.concatenate([np.where(known, scaled, np.float32(0)), share], axis=-1)
