"""Convolutions of whole graphs, compiled, against the reference interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ops import BroadcastInDim, ConvGeneral, Input, Parameter, Relu, functional

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
