"""Rows: softmax and norms along every axis, fused with what is around them."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.types import TensorType
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic import rows
from graphc.lowering.cpu.generic.hoist import storable
from graphc.lowering.cpu.generic.schedule import schedule
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.generic.trace import expanded
from graphc.ops import (
    Add,
    BroadcastInDim,
    Fusion,
    Gelu,
    GroupNorm,
    LayerNorm,
    LogSoftmax,
    Multiply,
    RmsNorm,
    Softmax,
    Tanh,
)
from tests.lowering.cpu.bodies import (
    NATIVE,
    Kernels,
    body,
    check,
    close,
    expected,
    kernels_by_target,
    operands,
)

N, T = Dim.symbol("N"), Dim.symbol("T")
DIMS = {"N": Bounds(), "T": Bounds()}


def emit(graph: Graph, target: CpuTarget, io: KernelIO) -> None:
    fusion = Fusion("rows", graph)
    assert rows.accepts(fusion, target)
    rows.emit(fusion, target, io)


def softmax(axis: int, *shape: DimLike, dtype: DType = DType.F32) -> Graph:
    dims = DIMS if any(isinstance(d, Dim) for d in shape) else None
    return body(lambda b, x: b(Softmax(axis), x), TensorType(dtype, shape), dims=dims)


def layer_norm(count: int, *shape: DimLike) -> Graph:
    dims = DIMS if any(isinstance(d, Dim) for d in shape) else None
    last = shape[-count:]
    return body(lambda b, *x: b(LayerNorm(count, 1e-5), *x), shape, last, last, dims=dims)


def masked(b: GraphBuilder, x: Value, mask: Value) -> Value:
    shape = b.type_of(x).shape
    scale = b(Multiply(), x, x)
    return b(Softmax(2), b(Add(), scale, b(BroadcastInDim(shape, (2,)), mask)))


def residual(b: GraphBuilder, x: Value, y: Value, w: Value, c: Value) -> Value:
    return b(Tanh(), b(LayerNorm(1, 1e-5), b(Add(), x, y), w, c))


def groups(channels_last: bool, *shape: int) -> Graph:
    c = (shape[-1] if channels_last else shape[1],)
    return body(lambda b, *x: b(GroupNorm(4, 1e-5, channels_last), *x), shape, c, c)


PLAIN = {
    "softmax": softmax(1, 6, 100),
    "softmax_short": softmax(1, 6, 3),
    "softmax_middle": softmax(1, 2, 7, 5, 9),
    "softmax_first": softmax(0, 30, 37),
    "softmax_half": softmax(1, 6, 100, dtype=DType.F16),
    "softmax_double": softmax(1, 6, 100, dtype=DType.F64),
    "log_softmax": body(lambda b, x: b(LogSoftmax(1), x), (6, 100)),
    "masked": body(masked, (2, 3, 50), (50,)),
    "layer_norm": layer_norm(1, 6, 100),
    "layer_norm_2": layer_norm(2, 3, 6, 10),
    "layer_norm_of_gelu": body(
        lambda b, x, w, c: b(LayerNorm(1, 1e-5), b(Gelu(), x), w, c), (6, 100), (100,), (100,)
    ),
    "residual": body(residual, (6, 100), (6, 100), (100,), (100,)),
    "rms_norm": body(lambda b, x, w: b(RmsNorm(1, 1e-5), x, w), (6, 100), (100,)),
    "group_norm": groups(False, 2, 12, 5, 7),
    "group_norm_last": groups(True, 2, 5, 7, 32),
    "group_norm_last_odd": groups(True, 2, 5, 7, 20),
    "softmax_times": body(lambda b, x, y: b(Multiply(), b(Softmax(1), x), y), (6, 40), (6, 40)),
}
NAMED = {
    "softmax": softmax(1, N, T),
    "softmax_first": softmax(0, N, T),
    "layer_norm": layer_norm(1, N, T),
    "log_softmax": body(lambda b, x: b(LogSoftmax(2), x), (N, 3, T), dims=DIMS),
}


@pytest.fixture(scope="module")
def plain() -> Kernels:
    return Kernels(PLAIN, emit)


@pytest.mark.parametrize("name", PLAIN)
def test_rows(plain: Kernels, name: str) -> None:
    check(plain, name)


named = kernels_by_target(NAMED, emit)


@pytest.mark.parametrize("name", NAMED)
def test_named_dims_take_any_value(named: Kernels | None, name: str) -> None:
    if named is None:
        return
    for n, t in ((1, 1), (3, 2), (2, 16), (3, 31), (5, 137), (41, 302)):
        check(named, name, N=n, T=t)


def test_a_nan_poisons_its_row_only(plain: Kernels) -> None:
    x = operands(PLAIN["softmax"])[0]
    x[2, 99] = np.nan
    (y,) = plain("softmax", x)
    assert np.isnan(y).all(1).tolist() == [i == 2 for i in range(6)]
    assert np.isnan(y).any(1).tolist() == [i == 2 for i in range(6)]


def test_huge_and_shifted_inputs_stay_exact(plain: Kernels) -> None:
    x = operands(PLAIN["softmax"])[0]
    close(plain("softmax", x + np.float32(1e4))[0].sum(1), np.ones(6, np.float32))
    rows, *affine = operands(PLAIN["layer_norm"])
    far = plain("layer_norm", (rows * 8 + 4096).astype(np.float32), *affine)[0]
    near = plain("layer_norm", ((rows * 8 + 4096).astype(np.float32) - 4096), *affine)[0]
    close(far, near, 1e-4)


def test_reductions_are_hoisted_out_of_the_row() -> None:
    def split(name: str) -> tuple[list[str], list[str], bool]:
        graph = expanded(PLAIN[name])
        plan = schedule(graph, [graph.outputs[0][1]], NATIVE)
        sizes = [str(s) for s in plan.axes.sizes]
        return [sizes[g] for g in plan.outer], [sizes[g] for g in plan.inner], plan.row

    assert split("layer_norm") == (["6"], ["100"], True)
    assert split("layer_norm_2") == (["3"], ["60"], True)
    assert split("softmax_middle") == (["2", "45"], ["7"], True)
    assert split("group_norm_last") == (["2", "4"], ["35", "8"], True)


def test_exponentials_wait_in_the_output() -> None:
    def kept(name: str) -> str | None:
        graph = expanded(PLAIN[name])
        (_, output), *_ = graph.outputs
        plan = schedule(graph, [output], NATIVE)
        found = storable(graph, plan, output)
        return None if found is None else graph.node(found.value.node).op.name

    assert kept("softmax") == "exp"
    assert kept("softmax_middle") == "exp"
    assert kept("masked") == "exp"
    assert kept("layer_norm_of_gelu") == "gelu"
    assert kept("layer_norm") is None
    assert kept("log_softmax") is None
    assert kept("softmax_half") == "exp"  # in f32 and on the stack: the output is f16


def test_a_result_over_an_operand_keeps_nothing_there() -> None:
    names = ("softmax_times", "residual")
    graphs = {n: PLAIN[n] for n in names}
    kernels = Kernels(graphs, emit, in_place=1)
    for name in names:
        arrays = operands(graphs[name])
        close(kernels(name, *arrays)[0], expected(graphs[name], arrays)[0])
