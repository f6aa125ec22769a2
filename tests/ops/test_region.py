"""Sources and fusion regions."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
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
