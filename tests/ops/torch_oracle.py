"""PyTorch as the independent truth: arrays there and back, comparison by element type."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch
from hypothesis import settings

from graphc.ir.op import Array, Op

torch.set_num_threads(1)  # small tensors: threads only wait for each other

quick = settings(max_examples=40, deadline=None, derandomize=True)
_EPS = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}


def tensor(x: Array) -> torch.Tensor:
    """The same elements as a tensor."""
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.astype(np.float32)).bfloat16()
    return torch.from_numpy(np.array(x))


def numpy(t: torch.Tensor) -> Array:
    """The same elements as an array."""
    if t.dtype == torch.bfloat16:
        return t.float().numpy().astype(ml_dtypes.bfloat16)
    return t.numpy()


def agree(op: Op, arrays: list[Array], expected: Any, *, scale: float = 1.0) -> None:
    """The op's NumPy meaning is what PyTorch gave: type, shape, and values up to rounding times `scale`."""
    (actual,) = op.evaluate(*arrays)
    want = numpy(expected) if isinstance(expected, torch.Tensor) else expected
    assert actual.shape == want.shape
    assert actual.dtype == want.dtype
    eps = _EPS.get(want.dtype.name, 0) * scale
    a, b = (x.astype(np.float64) if eps else x for x in (actual, want))
    np.testing.assert_allclose(a, b, rtol=eps, atol=eps)
