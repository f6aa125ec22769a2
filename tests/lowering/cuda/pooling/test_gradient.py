"""The gradient of max pooling on the emulator, alone and in whole graphs, against the interpreter."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from graphc.autodiff import gradients
from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ops import Fusion, Input, MaxPool, MaxPoolGradient, Relu, arith
from tests.lowering.cuda.bodies import Kernels, selected
from tests.lowering.cuda.emulated import check

NONE = (0, 0)
CASES = {
    "halves": (DType.F32, (2, 6, 9, 8), (2, 2), (2, 2), (NONE, NONE), (1, 1)),
    "overlapping": (DType.F32, (2, 9, 7, 12), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "dilated": (DType.F32, (1, 9, 7, 5), (3, 2), (1, 1), ((2, 1), (0, 1)), (2, 3)),
    "apart": (DType.F64, (2, 8, 9, 6), (2, 2), (3, 3), ((0, 1), (1, 0)), (1, 1)),
    "cropped": (DType.F16, (2, 8, 9, 4), (3, 2), (2, 1), ((-1, -2), (0, -1)), (1, 1)),
    "line": (DType.BF16, (2, 11, 16), (4,), (3,), ((2, 2),), (1,)),
    "volume": (DType.F32, (1, 4, 5, 6, 4), (2, 3, 2), (1, 2, 2), (NONE, (1, 1), NONE), (1, 1, 1)),
    "whole": (DType.F32, (2, 17, 16, 2), (17, 16), (1, 1), (NONE, NONE), (1, 1)),
}


def with_ties(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """Small integers, some infinite, and NaN in a few windows."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, shape).astype(np.float64)
    x[rng.random(shape) < 0.2] = -np.inf
    x[rng.random(shape) < 0.01] = np.nan
    return x.astype(dtype.numpy)


def alone(name: str) -> Graph:
    dtype, shape, window, strides, padding, dilation = CASES[name]
    b = GraphBuilder(name)
    x = b(Input("x", dtype, shape))
    pool = MaxPool(window, strides, padding, dilation, True)
    (pooled,) = pool.infer(b.type_of(x))
    given = b(Input("given", dtype, pooled.shape))
    op = MaxPoolGradient(window, strides, padding, dilation, True)
    return b.build([("dx", b(op, x, given))])


@cache
def kernels() -> Kernels:
    return Kernels({name: alone(name) for name in CASES})


@pytest.mark.parametrize("name", CASES)
def test_cotangents_go_to_the_first_maximum(name: str) -> None:
    """Whatever the order of threads, bit for bit: cotangents are integers."""
    function, body = kernels().functions[name], kernels().bodies[name]
    assert function.kernel.family == "pool gradient" and len(function.kernel.stages) == 2
    x, given = (n.types[0] for n in body.inputs)
    values = with_ties(x.concrete({}), x.dtype)
    rng = np.random.default_rng(1)
    cotangent = rng.integers(-9, 10, given.concrete({})).astype(given.dtype.numpy)
    (op,) = (n.op for n in body.nodes if isinstance(n.op, MaxPoolGradient))
    (expected,) = op.evaluate(values, cotangent)
    for reverse in (False, True):
        (found,) = kernels()(name, values, cotangent, reverse=reverse)
        np.testing.assert_array_equal(found.astype("f8"), expected.astype("f8"))


def test_a_training_step_keeps_it_in_one_kernel() -> None:
    """Relu, pooling, and the gradient by what comes before both, for any number of pictures and both layouts."""
    batch, pad = Dim.symbol("N"), ((1, 1), (1, 1))
    b = GraphBuilder("step", {"N": Bounds()})
    outputs, inputs, rng = [], {}, np.random.default_rng(2)
    for layout, shape in (("last", (9, 8, 20)), ("first", (20, 9, 8))):
        x = b(Input(layout, DType.F32, (batch, *shape)))
        y = b(MaxPool((3, 3), (2, 2), pad, (1, 1), layout == "last"), b(Relu(), x))
        given = b(Input(f"d{layout}", DType.F32, (batch, 400)))
        given = arith.reshape(b, given, b.type_of(y).shape)
        (dx,) = gradients(b, arith.sum(b, arith.multiply(b, y, given)), [x])
        outputs += [(f"y_{layout}", y), (f"dx_{layout}", dx)]
        inputs[layout] = rng.integers(-3, 4, (3, *shape)).astype(np.float32)
        inputs[f"d{layout}"] = rng.normal(size=(3, 400)).astype(np.float32)
    _, program = check(b.build(outputs), inputs)
    kernels = program.source[program.source.index('extern "C" __global__') :]
    assert kernels.count("graphc_add_noted<") == 2


def test_other_layouts_are_left_to_the_nest() -> None:
    b = GraphBuilder("first")
    x, given = (b(Input(n, DType.F32, (1, 2, s, s))) for n, s in (("x", 4), ("given", 2)))
    op = MaxPoolGradient((2, 2), (2, 2), (NONE, NONE), (1, 1))
    assert selected(Fusion("test", b.build([("dx", b(op, x, given))]))).family == "nest"
