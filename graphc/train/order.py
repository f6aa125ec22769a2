"""The order of rows in an epoch: a function of seed and epoch alone, so that a run can go on anywhere.

The random bits are Philox-4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), whose raw
stream NumPy keeps the same for ever; `Generator.permutation` is not promised to be.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SPLIT = (1 << 64) - 1
"""The stream that splits into training and validation rows draw from; epochs have the streams from 0."""


def uniform_order(length: int, seed: int, stream: int) -> npt.NDArray[np.int64]:
    """A permutation of `range(length)`: the ranks of 64-bit random numbers, ties in favour of the first.

    Args:
        length: how many rows.
        seed: of the run, 0 to 2^64 - 1.
        stream: which permutation of that seed: the epoch.
    """
    bits = np.random.Philox(key=seed | stream << 64).random_raw(length)
    return np.argsort(bits, kind="stable").astype(np.int64, copy=False)
