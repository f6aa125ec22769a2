"""Every op's gradient, first and second, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.autodiff import gradients
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ir.op import Op, OpError
from graphc.ops.elementwise import Elementwise
from graphc.ops.source import Source
from tests.autodiff.numeric import check, smooth_sample

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
