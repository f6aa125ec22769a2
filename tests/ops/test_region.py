"""Sources and fusion regions."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ir.op import OpError
from graphc.ir.types import TensorType
from graphc.ops import functional as f

N = Dim.symbol("N")
X = TensorType(DType.F32, (N, 4))


def fusion() -> o.Fusion:
    b = GraphBuilder("body")
    x, y = (b(o.Input(n, X.dtype, X.shape)) for n in "xy")
    z = f.add(b, b(o.Exp(), x), y)
    mean = f.mean(b, z, 0)
    return o.Fusion("row", b.build([("z", z), ("m", mean)]))


def test_a_fusion_is_its_body() -> None:
    op = fusion()
    assert [str(t) for t in op.infer(X, X)] == ["f32[N, 4]", "f32[4]"]
    x, y = (np.random.default_rng(i).normal(size=(3, 4)).astype(np.float32) for i in (0, 1))
    z, mean = op.substitute({"N": 3}).evaluate(x, y)
    np.testing.assert_allclose(z, np.exp(x) + y, rtol=1e-6)
    np.testing.assert_allclose(mean, (np.exp(x) + y).mean(0), rtol=1e-5)
    assert op.flops([X, X], op.infer(X, X)) == N * 12 + 4
    assert op.regions == (op.body,)


def test_a_fusion_wants_its_bodys_types() -> None:
    with pytest.raises(OpError, match="takes 2 operands and got 1"):
        fusion().infer(X)
    with pytest.raises(OpError, match=r"takes f32\[N, 4\] as operand 1 and got f32\[N, 5\]"):
        fusion().infer(X, X.with_shape((N, 5)))


def cond() -> o.Cond:
    """`exp(x) + s` or `x`, and a number."""
    bodies = []
    for side in range(2):
        b = GraphBuilder("cond")
        x, s = (b(o.Input(n, X.dtype, t)) for n, t in (("x", X.shape), ("s", ())))
        y = x if side else f.add(b, b(o.Exp(), x), s)
        bodies.append(b.build([("y", y), ("k", b(o.Constant.of(np.float32(side))))]))
    return o.Cond(*bodies)


def test_a_cond_is_the_body_that_the_predicate_says() -> None:
    op, bit, number = cond(), TensorType(DType.BOOL, ()), TensorType(DType.F32, ())
    assert [str(t) for t in op.infer(bit, X, number)] == ["f32[N, 4]", "f32[]"]
    x, s = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), np.float32(2)
    fixed = op.substitute({"N": 3})
    y, k = fixed.evaluate(np.array(True), x, np.asarray(s))
    np.testing.assert_allclose(y, np.exp(x) + 2, rtol=1e-6)
    assert k == 0
    y, k = fixed.evaluate(np.array(False), x, np.asarray(s))
    assert (y == x).all() and y is not x and k == 1
    assert op.flops([bit, X, number], ()) == N * 8
    assert op.regions == (op.on_true, op.on_false)


def test_a_cond_wants_one_bool_its_captures_and_equal_results() -> None:
    op, bit, number = cond(), TensorType(DType.BOOL, ()), TensorType(DType.F32, ())
    for wrong in (X, number, bit.with_shape((1,))):
        with pytest.raises(OpError, match=r"chooses by a bool\[\]") as caught:
            op.infer(wrong, X, number)
        assert (caught.value.code, caught.value.operand) == ("E0805", 0)
    with pytest.raises(OpError, match="takes a predicate"):
        op.infer()
    with pytest.raises(OpError, match="takes 2 captures and got 1"):
        op.infer(bit, X)
    with pytest.raises(OpError, match=r"`s` of cond is f32\[\] and gets f32\[N, 4\]"):
        op.infer(bit, X, X)
    yes = op.on_true
    less = Graph(yes.name, yes.dims, yes.nodes, yes.outputs[:1])
    with pytest.raises(OpError, match=r"give f32\[N, 4\] and f32\[N, 4\], f32\[\]") as caught:
        o.Cond(less, op.on_false).infer(bit, X, number)
    assert caught.value.code == "E0806"


def test_constants_compare_by_bits_and_are_read_only() -> None:
    a, b = (o.Constant.of(np.array([1.5, 2.5], np.float32)) for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    assert a.splat is None
    assert o.Constant.of(np.full((2, 2), 7, np.int8)).splat == 7
    with pytest.raises(ValueError, match="read-only"):
        a.array[0] = 1


def test_sources_check_their_shapes() -> None:
    for op, code in (
        (o.Input("x", DType.F32, (-1,)), "E0207"),
        (o.Parameter("w", DType.F32, (N,), "zeros()"), "E0207"),
        (o.Iota(DType.BOOL, (2,), 0), "E0206"),
        (o.Iota(DType.I64, (2,), 1), "E0211"),
        (o.DimValue(DType.BOOL, N), "E0206"),
    ):
        with pytest.raises(OpError) as caught:
            op.infer()
        assert caught.value.code == code


def test_a_dim_value_is_the_dimension() -> None:
    op = o.DimValue(DType.F32, N * 2 + 1)
    assert op.substitute({"N": 4}).evaluate()[0] == np.float32(9)
