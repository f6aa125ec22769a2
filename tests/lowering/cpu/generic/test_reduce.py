"""Reductions: along memory, across it, both; accuracy of long sums; NaN; windows and contractions."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic import reduce
from graphc.lowering.cpu.io import KernelIO
from graphc.ops import (
    Add,
    ArgMax,
    ArgMin,
    AvgPool,
    ConvGeneral,
    DotGeneral,
    Exp,
    Fusion,
    MaxPool,
    Multiply,
    ReduceAll,
    ReduceAny,
    ReduceMax,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    Relu,
    Resize,
    Transpose,
)
from tests.lowering.cpu.bodies import NATIVE, Kernels, body, check, kernels_by_target, operands

N, T = Dim.symbol("N"), Dim.symbol("T")
DIMS = {"N": Bounds(), "T": Bounds()}


def emit(graph: Graph, target: CpuTarget, io: KernelIO) -> None:
    fusion = Fusion("reduce", graph)
    assert reduce.accepts(fusion, target)
    reduce.emit(fusion, target, io)


def conv(padding: int, channels_last: bool) -> ConvGeneral:
    pads = ((padding, padding),) * 2
    return ConvGeneral((1, 2), pads, (1, 1), (1, 1), 2, channels_last)


PLAIN = {
    "last": body(lambda b, x: b(ReduceSum((1,)), x), (3, 100)),
    "last_short": body(lambda b, x: b(ReduceSum((1,)), x), (30, 3)),
    "first": body(lambda b, x: b(ReduceSum((0,)), x), (30, 37)),
    "space_last": body(lambda b, x: b(ReduceSum((1, 2)), x), (2, 7, 7, 40)),
    "space_first": body(lambda b, x: b(ReduceSum((2, 3)), x), (2, 40, 7, 7)),
    "apart": body(lambda b, x: b(ReduceSum((0, 2)), x), (3, 5, 7, 19)),
    "everything": body(lambda b, x: b(ReduceSum((0, 1)), x), (37, 101)),
    "dot": body(lambda b, x, y: b(ReduceSum((0,)), b(Multiply(), x, y)), (1000,), (1000,)),
    "epilogue": body(
        lambda b, x, y: b(Relu(), b(Add(), b(ReduceMax((1,)), b(Exp(), x)), y)), (5, 40), (5,)
    ),
    "turned": body(lambda b, x: b(ReduceSum((1,)), b(Transpose((1, 0)), x)), (40, 37)),
    "prod": body(lambda b, x: b(ReduceProd((1,)), x), (3, 19)),
    "min": body(lambda b, x: b(ReduceMin((0,)), x), (30, 37)),
    "any": body(lambda b, x: b(ReduceAny((1,)), x), TensorType(DType.BOOL, (6, 50))),
    "all": body(lambda b, x: b(ReduceAll((0,)), x), TensorType(DType.BOOL, (3, 50))),
    "i64": body(lambda b, x: b(ReduceSum((1,)), x), TensorType(DType.I64, (3, 50))),
    "u8": body(lambda b, x: b(ReduceMax((1,)), x), TensorType(DType.U8, (3, 50))),
    "half": body(lambda b, x: b(ReduceSum((1,)), x), TensorType(DType.F16, (3, 50))),
    "brain": body(lambda b, x: b(ReduceMax((1,)), x), TensorType(DType.BF16, (3, 50))),
    "double": body(lambda b, x: b(ReduceSum((1,)), x), TensorType(DType.F64, (3, 50))),
    "argmax": body(lambda b, x: b(ArgMax(1), x), (5, 33)),
    "argmin_columns": body(lambda b, x: b(ArgMin(0), x), (5, 33)),
    "max_pool": body(
        lambda b, x: b(MaxPool((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), True), x), (1, 9, 8, 19)
    ),
    "avg_pool": body(
        lambda b, x: b(AvgPool((2, 2), (2, 2), ((0, 1), (1, 0)), (1, 1), False, False, None), x),
        (1, 3, 9, 8),
    ),
    "conv": body(lambda b, x, w: b(conv(1, False), x, w), (1, 4, 6, 9), (6, 2, 3, 3)),
    "conv_last": body(lambda b, x, w: b(conv(1, True), x, w), (1, 6, 9, 4), (6, 2, 3, 3)),
    "matmul": body(lambda b, x, y: b(DotGeneral((), (), (1,), (0,)), x, y), (5, 19), (19, 37)),
    "matmul_rows": body(lambda b, x, y: b(DotGeneral((), (), (1,), (1,)), x, y), (5, 90), (7, 90)),
    "resize": body(lambda b, x: b(Resize((7, 11), "bilinear", False, False), x), (1, 2, 5, 4)),
    "resize_last": body(lambda b, x: b(Resize((7, 11), "bilinear", True, True), x), (1, 5, 4, 20)),
}
NAMED = {
    "last": body(lambda b, x: b(ReduceSum((1,)), x), (N, T), dims=DIMS),
    "first": body(lambda b, x: b(ReduceSum((0,)), x), (N, T), dims=DIMS),
    "max": body(lambda b, x: b(ReduceMax((1,)), x), (N, T), dims=DIMS),
    "argmax": body(lambda b, x: b(ArgMax(1), x), (N, T), dims=DIMS),
    "everything": body(lambda b, x: b(ReduceSum((0, 1)), x), (N, T), dims=DIMS),
    "space": body(lambda b, x: b(ReduceSum((1, 2)), x), (N, T, T, 5), dims=DIMS),
}
LONG = 1_000_000
SUMS = {
    "row": body(lambda b, x: b(ReduceSum((0,)), x), (LONG,)),
    "columns": body(lambda b, x: b(ReduceSum((0,)), x), (LONG // 16, 16)),
    "strided": body(lambda b, x: b(ReduceSum((1,)), x), (2, LONG // 8, 4)),
    "pieces": body(lambda b, x: b(ReduceSum((1, 3)), x), (1, LONG // 50, 2, 25)),
    "named": body(lambda b, x: b(ReduceSum((0,)), x), (N,), dims={"N": Bounds()}),
}


@pytest.fixture(scope="module")
def plain() -> Kernels:
    return Kernels(PLAIN, emit)


@pytest.mark.parametrize("name", PLAIN)
def test_reductions(plain: Kernels, name: str) -> None:
    check(plain, name)


named = kernels_by_target(NAMED, emit)


@pytest.mark.parametrize("name", NAMED)
def test_named_dims_take_any_value(named: Kernels | None, name: str) -> None:
    if named is None:
        return
    shared = (2, 71) if name == "space" else (40, 501)  # enough for threads
    for n, t in ((1, 1), (3, 2), (2, 16), (3, 31), (40, 100), shared):
        check(named, name, N=n, T=t)


@pytest.fixture(scope="module")
def sums() -> Kernels:
    return Kernels(SUMS, emit)


@pytest.mark.parametrize("name", SUMS)
def test_sums_of_a_million_terms_keep_their_digits(sums: Kernels, name: str) -> None:
    dims = {"N": LONG} if name == "named" else {}
    (x,) = operands(SUMS[name], 3, **dims)
    x = np.abs(x) + np.float32(0.1)
    axes = SUMS[name].node(SUMS[name].outputs[0][1].node).op.attributes()["axes"]
    exact = x.astype(np.float64).sum(axes)
    (actual,) = sums(name, x, **dims)
    assert np.max(np.abs(actual - exact) / exact) < 2e-6


@pytest.mark.usefixtures("all_processors")
def test_long_sums_do_not_depend_on_the_number_of_threads(sums: Kernels) -> None:
    (x,) = operands(SUMS["row"])
    results = {sums("row", x, threads=n)[0].tobytes() for n in (1, 2, 3)}
    assert len(results) == 1


def test_nan_wins_and_the_first_of_equals(plain: Kernels) -> None:
    x = np.zeros((5, 33), np.float32)
    x[1, [3, 20]] = 7
    x[2, [18, 32]] = np.nan
    x[3, 32] = np.inf
    x[4] = -np.inf
    assert plain("argmax", x)[0].tolist() == [0, 3, 18, 32, 0]
    y = np.ones((30, 37), np.float32)
    y[29, 5] = np.nan
    assert np.isnan(plain("min", y)[0]).tolist() == [i == 5 for i in range(37)]


def test_generic_loops_take_what_can_be_computed() -> None:
    for graph in (*PLAIN.values(), *NAMED.values()):
        assert reduce.accepts(Fusion("reduce", graph), NATIVE)
