"""Every op's gradient, first and second, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.autodiff import gradients
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ir.op import Array, Op, OpError
from graphc.ir.verify import verify
from graphc.ops.elementwise import Elementwise
from graphc.ops.source import Source
from graphc.reference import interpret
from tests.autodiff.numeric import check, smooth_sample, weighted
from tests.ops.samples import retyped

WITHOUT = {
    "arg_max": "integers",
    "arg_min": "integers",
    "arg_sort": "integers",
    "compare": "bool",
    "is_nan": "bool",
    "not": "bool and integers",
    "and": "bool and integers",
    "or": "bool and integers",
    "xor": "bool and integers",
    "random_bits": "integers",
    "reduce_any": "bool",
    "reduce_all": "bool",
    "fusion": "made by a pass, after differentiation",
}
"""Ops that have no gradient, and what they give."""

SOURCES = {name for name, op in ops.OPS.items() if issubclass(op, Source)}
STEPS = {"floor", "ceil", "round_nearest_even", "sign", "floor_divide", "stop_gradient"}
DIFFERENTIABLE = sorted(set(ops.OPS) - SOURCES - set(WITHOUT))


@pytest.mark.parametrize("name", sorted(set(DIFFERENTIABLE) - STEPS))
@pytest.mark.parametrize("order", [1, 2])
def test_gradient_is_the_finite_difference(name: str, order: int) -> None:
    rng = np.random.default_rng([order, *name.encode()])
    for _ in range(8 if order == 1 else 5):
        check(*smooth_sample(name, rng), order, rng)


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16, DType.F32])
@pytest.mark.parametrize("name", sorted(set(DIFFERENTIABLE) - STEPS))
def test_narrow_floats_have_gradients_of_their_type(name: str, dtype: DType) -> None:
    op, arrays = smooth_sample(name, np.random.default_rng([*name.encode()]))
    narrow = [x.astype(dtype.numpy) if x.dtype == np.float64 else x for x in arrays]
    exact = [n.astype(x.dtype) for n, x in zip(narrow, arrays, strict=True)]
    eps = {DType.F16: 2**-10, DType.BF16: 2**-7, DType.F32: 2**-20}[dtype]
    for a, z in zip(_gradients(op, exact), _gradients(retyped(op, dtype), narrow), strict=True):
        assert z.dtype == dtype.numpy
        scale = 8 * eps * (1 + np.abs(a).max(initial=0))
        np.testing.assert_allclose(z.astype(np.float64), a, rtol=0, atol=scale)


def _gradients(op: Op, arrays: list[Array]) -> list[Array]:
    b = GraphBuilder("narrow")
    values = [
        b(ops.Input(f"a{i}", DType.from_numpy(x.dtype), x.shape)) for i, x in enumerate(arrays)
    ]
    y = weighted(
        b,
        [ops.arith.convert(b, y, DType.F64) for y in b.emit(op, *values)],
        np.random.default_rng(0),
    )
    found = gradients(b, y, [v for v in values if b.type_of(v).dtype.is_float])
    graph = b.build([(str(i), g) for i, g in enumerate(found)])
    verify(graph)
    return list(interpret(graph, {f"a{i}": x for i, x in enumerate(arrays)}, {}).values())


def test_curvature_passes_through_max_pooling() -> None:
    """The cube of what is pooled: its gradient depends on x through the cotangent of the pooling alone."""
    rng = np.random.default_rng(3)
    b = GraphBuilder("cube")
    x = b(ops.Input("x", DType.F64, (2, 2, 6, 7)))
    pool = ops.MaxPool((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 2))
    y = b(pool, x)
    total = ops.arith.sum(b, ops.arith.multiply(b, ops.arith.multiply(b, y, y), y))
    (slope,) = gradients(b, total, [x])
    way = rng.normal(size=(2, 2, 6, 7))
    (curvature,) = gradients(
        b, ops.arith.sum(b, ops.arith.multiply(b, slope, b(ops.Constant.of(way)))), [x]
    )
    assert "max_pool_gradient" in {n.op.name for n in b.nodes}
    graph = b.build([("slope", slope), ("curvature", curvature)])
    at, h = rng.normal(size=way.shape), 1e-5
    low, high = (interpret(graph, {"x": at + s * way}, {})["slope"] for s in (-h, h))
    found = interpret(graph, {"x": at}, {})["curvature"]
    assert np.abs(found).max() > 1
    np.testing.assert_allclose(found, (high - low) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(STEPS))
def test_steps_have_gradient_zero(name: str) -> None:
    b = GraphBuilder("steps")
    op = ops.OPS[name]()
    xs = [b(ops.Input(f"x{i}", DType.F32, (3,))) for i in range(op.arity or 0)]
    for g in gradients(b, ops.arith.sum(b, b(op, *xs)), xs):
        node = b.node_of(g)
        assert node.op.name == "broadcast_in_dim"
        assert b.node_of(node.operands[0]).op == ops.Constant.of(np.float32(0))


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_what_has_no_gradient_has_no_rule(name: str) -> None:
    op = ops.OPS[name]
    assert op.gradient in (Op.gradient, Elementwise.gradient)
    assert op.decompose is Op.decompose
    assert getattr(op, "pullback", None) in (None, Elementwise.pullback)


def test_an_op_without_a_gradient_is_named() -> None:
    inner = GraphBuilder("body")
    x = inner(ops.Input("x", DType.F32, ()))
    body = inner.build([("y", inner(ops.Exp(), x))])
    b = GraphBuilder("outer")
    x = b(ops.Input("x", DType.F32, ()))
    with pytest.raises(OpError, match="fusion has no gradient") as caught:
        gradients(b, b(ops.Fusion("map", body), x), [x])
    assert caught.value.code == "E0811"
