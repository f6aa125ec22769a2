"""Reductions over leading dimensions against the interpreter: shared among blocks, in several passes, of all kinds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ops import Input, IsNan, ReduceAny, ReduceMax, ReduceSum, Variance
from graphc.ops import functional as f
from graphc.reference import interpret
from tests.lowering.cuda.bodies import Kernels
from tests.lowering.cuda.emulated import compare

N = Dim.symbol("N")
SHAPES: dict[str, tuple[tuple[DimLike, ...], DType]] = {
    "sums": ((1500, 6), DType.F32),
    "statistics": ((9, 30, 30, 16), DType.F32),
    "narrow": ((900, 40), DType.BF16),
    "scalar": ((70, 90, 3), DType.F32),
    "largest": ((600, 5), DType.F32),
    "planes": ((200, 3, 20), DType.F64),
    "wide": ((70, 300), DType.F32),
    "open": ((N, 7, 12), DType.F32),
}


def body(name: str) -> Graph:
    shape, dtype = SHAPES[name]
    b = GraphBuilder(name, {"N": Bounds(1)} if N in shape else {})
    x = b(Input("x", dtype, shape))
    columns = tuple(range(len(shape) - 1))
    if name in ("statistics", "wide"):
        mean = f.mean(b, x, columns)
        return b.build([("mean", mean), ("variance", b(Variance(columns), x))])
    if name == "largest":
        bad = b(ReduceAny(columns), b(IsNan(), x))
        return b.build([("max", b(ReduceMax(columns), x)), ("bad", bad)])
    if name == "sums":
        y = b(Input("y", dtype, shape))
        bias = b(Input("bias", dtype, shape[-1:]))
        both = b(ReduceSum(columns), f.multiply(b, x, y))
        return b.build([("new", f.subtract(b, bias, both)), ("sum", b(ReduceSum(columns), x))])
    axes = {"scalar": (0, 1, 2), "planes": (0,)}.get(name, columns)
    return b.build([("y", b(ReduceSum(axes), f.multiply(b, x, x)))])


@cache
def kernels() -> Kernels:
    return Kernels({name: body(name) for name in SHAPES})


@pytest.mark.parametrize("name", SHAPES)
def test_columns(name: str) -> None:
    graph, rng = kernels().bodies[name], np.random.default_rng(0)
    dims = {"N": 40} if name == "open" else {}
    types = {str(n.op.attributes()["label"]): n.types[0] for n in graph.inputs}
    arrays = {
        k: (rng.normal(size=t.concrete(dims)) + 1).astype(t.dtype.numpy) for k, t in types.items()
    }
    if name == "largest":
        arrays["x"][300, 2] = np.nan
    found = kernels()(name, *arrays.values(), **dims)
    again = kernels()(name, *arrays.values(), reverse=True, **dims)
    for one, two in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, two)  # whatever block is first
    results = dict(zip((n for n, _ in graph.outputs), found, strict=True))
    compare(results, interpret(graph, arrays, {}), 8e-3 if name == "narrow" else 2e-6)
    chosen = kernels().functions[name].kernel
    launches = {"statistics": 4, "wide": 1, "scalar": 2}
    assert chosen.family == "columns" and len(chosen.stages) == launches.get(
        name, len(chosen.stages)
    )
