"""Graphs of one op, their gradients, and central finite differences in f64 on the NumPy interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.autodiff import gradients
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.op import Array, Op
from graphc.ir.verify import verify
from graphc.ops import Constant, Convert, Input, arith
from graphc.reference import interpret
from tests.ops.samples import SAMPLES, Rng, retyped

STEP = 1e-5  # the error of a central difference is about STEP ** 2


def weighted(b: GraphBuilder, values: Sequence[Value], rng: Rng) -> Value:
    """A scalar that depends on every element of every value differently."""
    total = arith.constant(b, 0.0, DType.F64)
    for value in values:
        shape = tuple(int(d) for d in b.type_of(value).shape if isinstance(d, int))
        weight = b(Constant.of(rng.normal(size=shape)))
        total = arith.add(b, total, arith.sum(b, arith.multiply(b, value, weight)))
    return total


def floats(arrays: Sequence[Array]) -> list[int]:
    """The slots of float operands."""
    return [i for i, x in enumerate(arrays) if x.dtype == np.float64]


def one_op(op: Op, arrays: Sequence[Array], order: int, rng: Rng) -> tuple[Graph, list[int]]:
    """`y`, a scalar, and `g0, g1, ...`, its gradients by the float operands `a0, a1, ...`.

    y is weighted from the op's result for order 1, from its gradients for order 2.
    """
    b = GraphBuilder("one")
    values = [b(Input(f"a{i}", DType.from_numpy(x.dtype), x.shape)) for i, x in enumerate(arrays)]
    slots = floats(arrays)
    xs = [values[i] for i in slots]
    y = weighted(b, b.emit(op, *values), rng)
    for _ in range(order - 1):
        y = weighted(b, gradients(b, y, xs), rng)
    found = gradients(b, y, xs)
    graph = b.build([("y", y), *((f"g{i}", g) for i, g in zip(slots, found, strict=True))])
    verify(graph)
    return graph, slots


def check(op: Op, arrays: Sequence[Array], order: int, rng: Rng) -> None:
    """The gradient along a random direction is the central difference: 1e-6 relative to what adds up to it."""
    graph, slots = one_op(op, arrays, order, rng)
    ways = {i: rng.normal(size=arrays[i].shape) for i in slots}

    def run(step: float) -> dict[str, Array]:
        moved = [x + step * ways[i] if i in ways else x for i, x in enumerate(arrays)]
        return interpret(graph, {f"a{i}": np.asarray(x) for i, x in enumerate(moved)}, {})

    parts = {i: run(0.0)[f"g{i}"] * ways[i] for i in slots}
    slope = sum(float(part.sum()) for part in parts.values())
    scale = 1.0 + sum(float(np.abs(part).sum()) for part in parts.values())
    measured = (float(run(STEP)["y"]) - float(run(-STEP)["y"])) / (2 * STEP)
    assert abs(slope - measured) <= 1e-6 * scale, (op, slope, measured)


def smooth_sample(name: str, rng: Rng) -> tuple[Op, list[Array]]:
    """A sample of `tests/ops/samples.py` with float operands, those replaced by smooth f64 ones away from the edges."""
    positive = {"log": 0, "log1p": 0, "sqrt": 0, "rsqrt": 0, "power": 0, "batch_norm": 2}
    while True:
        op, arrays = SAMPLES[name](rng)
        kinds = [DType.from_numpy(x.dtype) for x in arrays]
        if not any(k.is_float for k in kinds):
            continue
        if name == "convert":
            op = Convert(DType.F64)
        op = retyped(op, DType.F64)
        for i, kind in enumerate(kinds):
            if kind.is_float:
                x = rng.normal(size=arrays[i].shape)
                x = np.abs(x) + 0.3 if positive.get(name) == i else x
                arrays[i] = np.asarray(
                    0.2 + 0.6 * np.exp(-x * x) if name == "binary_cross_entropy" else x
                )
        if all(np.isfinite(y).all() for y in op.evaluate(*arrays)):  # no window of padding only
            return op, arrays
