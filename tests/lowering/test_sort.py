"""Sorting, compiled for CPUs and on the emulated GPU, against NumPy's stable sort."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from graphc.artifact import Module
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ops import ArgSort, Input
from tests.lowering.cuda.bodies import Kernels

from .compiled import compile_graph

N = Dim.symbol("N")
CASES: dict[str, tuple[tuple[DimLike, ...], int, DType, bool]] = {
    "rows": ((3, 37), 1, DType.F32, False),
    "falling": ((2, 64), 1, DType.F64, True),
    "columns": ((700, 2), 0, DType.I64, False),
    "bytes": ((2, 9, 3), 1, DType.U8, True),
    "half": ((1, 20), 1, DType.F16, False),
    "one": ((4, 1), 1, DType.F32, True),
    "open": ((2, N), 1, DType.F32, True),
}


def graph_of(names: list[str]) -> Graph:
    b = GraphBuilder("sort", {"N": Bounds(1)} if "open" in names else {})
    outputs = []
    for name in names:
        shape, axis, dtype, descending = CASES[name]
        outputs.append(
            (f"{name}_order", b(ArgSort(axis, descending), b(Input(name, dtype, shape))))
        )
    return b.build(outputs)


@cache
def on_gpu() -> Kernels:
    return Kernels({name: graph_of([name]) for name in CASES})


@cache
def on_cpu() -> Module:
    return compile_graph(graph_of(list(CASES)), {})


@cache
def drawn() -> dict[str, np.ndarray]:
    """Many equal elements, and some that are not numbers."""
    rng, arrays = np.random.default_rng(0), {}
    for name, (shape, _, dtype, _) in CASES.items():
        size = [21 if isinstance(d, Dim) else d for d in shape]
        x = rng.integers(0, 12, size).astype(dtype.numpy)
        if dtype.is_float:
            x = np.where(rng.random(size) < 0.1, np.nan, x).astype(dtype.numpy)
        arrays[name] = x
    return arrays


@pytest.mark.parametrize("name", CASES)
def test_the_order_is_that_of_a_stable_sort(name: str) -> None:
    _, axis, _, descending = CASES[name]
    (want,) = ArgSort(axis, descending).evaluate(drawn()[name])
    np.testing.assert_array_equal(on_cpu()(**drawn())[f"{name}_order"], want)
    dims = {"N": 21} if name == "open" else {}
    (found,) = on_gpu()(name, drawn()[name], **dims)
    np.testing.assert_array_equal(found, want)
