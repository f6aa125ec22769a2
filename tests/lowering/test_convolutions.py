"""Convolutions of whole graphs, compiled, against the reference interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ops import (
    BroadcastInDim,
    ConvGeneral,
    Input,
    Pad,
    Parameter,
    Relu,
    Tanh,
    functional,
)

from .compiled import RUNNABLE, check

N = Dim.symbol("N")


@pytest.mark.parametrize("target", RUNNABLE)
def test_transposed_convolutions_with_overlapping_windows(target: str) -> None:
    b = GraphBuilder("t", {"N": Bounds()})
    x = b(Input("x", DType.F32, (N, 5, 4, 6)))
    out = {}
    for kernel, stride, padding, extra, groups in (
        (4, 2, 1, 0, 1),
        (3, 2, 1, 1, 2),
        (1, 2, 0, 0, 1),
    ):
        name = f"k{kernel}g{groups}"
        w = b(Parameter(name, DType.F32, (8, 6 // groups, kernel, kernel), "normal()"))
        bias = b(Parameter(f"{name}b", DType.F32, (8,), "normal()"))
        pad = (kernel - 1 - padding, kernel - 1 - padding + extra)
        op = ConvGeneral((1, 1), (pad,) * 2, (stride,) * 2, (1, 1), groups, True)
        y = b(op, x, w)
        shape = b.type_of(y).shape
        out[name] = b(Relu(), functional.add(b, y, b(BroadcastInDim(shape, (3,)), bias)))
    inputs = {"x": np.random.default_rng(0).standard_normal((3, 5, 4, 6)).astype(np.float32)}
    check(b.build(list(out.items())), inputs, target)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize(
    ("spatial", "channels", "features", "kernel", "border"),
    [
        ((9, 14), 1, 6, (5, 5), 0),  # LeNet's first layer: rows of 84 elements
        ((6, 11), 3, 5, (3, 3), 1),
        ((Dim.symbol("W"),), 2, 3, (2,), 0),
        ((3, 4, 7), 2, 11, (1, 2, 3), 0),
    ],
)
def test_channels_that_do_not_fill_a_vector(
    spatial: tuple[DimLike, ...],
    channels: int,
    features: int,
    kernel: tuple[int, ...],
    border: int,
    target: str,
) -> None:
    """They are finished together with the next pixel's: bias, residual and tanh, stored inside a border."""
    rank = len(kernel)
    bounds = {"N": Bounds(), **({"W": Bounds(2)} if Dim.symbol("W") in spatial else {})}
    b = GraphBuilder("t", bounds)
    x = b(Input("x", DType.F32, (N, *spatial, channels)))
    w = b(Parameter("w", DType.F32, (features, channels, *kernel), "normal()"))
    bias = b(Parameter("bias", DType.F32, (features,), "normal()"))
    y = b(ConvGeneral((1,) * rank, ((0, 0),) * rank, (1,) * rank, (1,) * rank, 1, True), x, w)
    shape = b.type_of(y).shape
    r = b(Input("r", DType.F32, shape))
    y = functional.add(b, y, b(BroadcastInDim(shape, (rank + 1,)), bias))
    y = b(Tanh(), functional.add(b, y, r))
    sides = (0, *(border,) * rank, 0)
    if border:
        y = b(Pad(sides, sides, (0,) * (rank + 2), 0.0), y)
    rng = np.random.default_rng(0)
    fixed = [d if isinstance(d, int) else 19 for d in spatial]
    out = [d - k + 1 for d, k in zip(fixed, kernel, strict=True)]
    inputs = {
        "x": rng.standard_normal((2, *fixed, channels)).astype(np.float32),
        "r": rng.standard_normal((2, *out, features)).astype(np.float32),
    }
    check(b.build([("y", y)]), inputs, target)
