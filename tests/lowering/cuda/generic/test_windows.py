"""Windows and other short reductions written out, several channels to a thread, against the interpreter."""

from __future__ import annotations

from functools import cache
from unittest import mock

import numpy as np
import pytest

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.cuda.generic import nest
from graphc.ops import AvgPool, ConvGeneral, Input, MaxPool, ReduceSum
from graphc.reference import interpret
from tests.lowering.cuda.bodies import Kernels
from tests.lowering.cuda.emulated import compare

TYPES = {"max": DType.F32, "narrow": DType.BF16}
WINDOW = ((3, 2), (2, 2), ((1, 1), (0, 1)), (1, 1), True)


def body(name: str) -> Graph:
    b = GraphBuilder(name)
    x = b(Input("x", TYPES.get(name, DType.F32), (2, 7, 9, 8)))
    if name in ("max", "narrow"):
        return b.build([("y", b(MaxPool(*WINDOW), x))])
    if name == "average":
        return b.build([("y", b(AvgPool(*WINDOW, count_include_pad=False), x))])
    if name == "sum":
        return b.build([("y", b(ReduceSum((1,)), x))])
    if name == "depthwise":
        w = b(Input("w", DType.F32, (8, 1, 3, 3)))
        op = ConvGeneral((1, 2), ((1, 1), (1, 0)), (1, 1), (1, 1), 8, True)
        return b.build([("y", b(op, x, w))])
    w = b(Input("w", DType.F32, (16, 2, 2, 2)))
    op = ConvGeneral((1, 1), ((0, 0), (1, 1)), (1, 1), (2, 1), 4, True)
    return b.build([("y", b(op, x, w))])


NAMES = ("max", "narrow", "average", "sum", "depthwise", "groups")


@cache
def kernels() -> Kernels:
    with mock.patch.object(nest, "_MANY", 1):  # as for large values
        return Kernels({name: body(name) for name in NAMES})


@pytest.mark.parametrize("name", NAMES)
def test_windows(name: str) -> None:
    graph, rng = kernels().bodies[name], np.random.default_rng(0)
    arrays = {
        str(n.op.attributes()["label"]): rng.normal(size=n.types[0].concrete({})).astype(
            n.types[0].dtype.numpy
        )
        for n in graph.inputs
    }
    if name == "max":
        arrays["x"][1, 2, 3, 4] = np.nan
    found = kernels()(name, *arrays.values())
    expected = interpret(graph, arrays, {})
    compare({"y": found[0]}, expected, 8e-3 if name == "narrow" else 2e-6)
