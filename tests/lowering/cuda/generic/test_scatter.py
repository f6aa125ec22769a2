"""Rows added at positions against the interpreter: repeated positions, other axes, positions out of range."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ops import Convert, IndexAdd, Input, arith
from graphc.reference import interpret
from tests.lowering.cuda.bodies import Kernels
from tests.lowering.cuda.emulated import compare

N = Dim.symbol("N")
CASES: dict[str, tuple[tuple[int, ...], int, DimLike, DType, DType]] = {
    "embedding": ((50, 20), 0, 300, DType.F32, DType.I64),
    "columns": ((3, 10, 150), 1, 140, DType.F64, DType.I32),
    "narrow": ((7, 12), 0, 40, DType.BF16, DType.I64),
    "last": ((5, 6), 1, 9, DType.F32, DType.I64),
    "open": ((9, 8), 0, N, DType.F32, DType.I64),
}


def body(name: str) -> Graph:
    shape, axis, count, dtype, index = CASES[name]
    b = GraphBuilder(name, {"N": Bounds(1)} if count is N else {})
    zeros = arith.broadcast_to(b, arith.constant(b, 0.0, dtype), shape)
    x = zeros if name == "embedding" else b(Input("x", dtype, shape))
    positions = b(Input("positions", index, (count,)))
    stored = DType.BF16 if name == "open" else dtype
    updates = b(Input("updates", stored, (*shape[:axis], count, *shape[axis + 1 :])))
    if name == "open":
        updates = b(Convert(DType.F32), updates)
    return b.build([("y", b(IndexAdd(axis), x, positions, updates))])


@cache
def kernels() -> Kernels:
    return Kernels({name: body(name) for name in CASES})


def operands(name: str) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    shape, axis, count, *_ = CASES[name]
    rng, dims = np.random.default_rng(0), {"N": 33} if count is N else {}
    found = {}
    for node in kernels().bodies[name].inputs:
        type = node.types[0]
        size = type.concrete(dims)
        drawn = rng.normal(size=size) if type.dtype.is_float else rng.integers(0, shape[axis], size)
        found[str(node.op.attributes()["label"])] = drawn.astype(type.dtype.numpy)
    return found, dims


@pytest.mark.parametrize("name", CASES)
def test_rows_are_added_in_order(name: str) -> None:
    arrays, dims = operands(name)
    found = kernels()(name, *arrays.values(), **dims)
    again = kernels()(name, *arrays.values(), reverse=True, **dims)
    np.testing.assert_array_equal(found[0], again[0])
    assert kernels().functions[name].kernel.family == "scatter"
    expected = interpret(kernels().bodies[name], arrays, {})
    compare({"y": found[0]}, expected, 8e-3 if name == "narrow" else 2e-6)


@pytest.mark.parametrize("bad", [-1, 50])
def test_a_position_out_of_range_is_a_fault(bad: int) -> None:
    arrays, dims = operands("embedding")
    arrays["positions"][123] = bad
    kernels()("embedding", *arrays.values(), **dims)
    assert kernels().fault == [1, bad % 2**64, 123, 50]
