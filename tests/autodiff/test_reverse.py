"""Reverse mode on whole graphs: what flows where, named dims, half precision, places."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import frontend, ops
from graphc.autodiff import BACKWARD, grad_graph, gradients
from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Scope, Value
from graphc.ir.op import OpError
from graphc.ir.verify import verify
from graphc.ops import arith
from graphc.ops.replay import GraphEmitter
from graphc.passes.canonicalise import canonicalise
from graphc.reference import interpret
from graphc.source import Source


def scalar(b: GraphBuilder, name: str = "x") -> Value:
    return b(ops.Input(name, DType.F64, ()))


def test_uses_add_up() -> None:
    b = GraphBuilder("uses")
    x = scalar(b)
    y = arith.add(b, arith.multiply(b, x, x), b(ops.Sine(), x))
    graph = b.build([("g", gradients(b, y, [x])[0])])
    assert interpret(graph, {"x": np.array(0.5)}, {})["g"] == pytest.approx(1 + np.cos(0.5))


def test_one_value_as_all_operands_of_a_composite() -> None:
    b = GraphBuilder("self")
    x = b(ops.Input("x", DType.F64, (1, 2, 3, 4)))
    wide = ops.Attention(0.5)
    copies = [b(ops.Negate(), b(ops.Negate(), x)) for _ in range(3)]
    shared, apart = (
        gradients(b, arith.sum(b, b(ops.Sine(), b(wide, *qkv))), [x])[0]
        for qkv in ((x, x, x), copies)
    )
    given = {"x": np.random.default_rng(0).normal(size=(1, 2, 3, 4))}
    found = interpret(b.build([("shared", shared), ("apart", apart)]), given, {})
    np.testing.assert_allclose(found["shared"], found["apart"], rtol=1e-12)


def test_an_x_may_depend_on_another() -> None:
    b = GraphBuilder("between")
    x = scalar(b)
    h = arith.multiply(b, x, 3.0)
    y = arith.multiply(b, h, h)
    by_h, by_x, by_y = gradients(b, y, [h, x, y])
    found = interpret(b.build([("h", by_h), ("x", by_x), ("y", by_y)]), {"x": np.array(2.0)}, {})
    assert [float(found[k]) for k in "hxy"] == [12.0, 36.0, 1.0]


def test_third_derivative() -> None:
    b = GraphBuilder("third")
    x = scalar(b)
    y = b(ops.Tanh(), x)
    for _ in range(3):
        (y,) = gradients(b, y, [x])
    t = np.tanh(0.3)
    found = interpret(b.build([("y", y)]), {"x": np.array(0.3)}, {})["y"]
    assert found == pytest.approx(-2 * (1 - t * t) * (1 - 3 * t * t))


def test_a_cotangent_weights_the_elements() -> None:
    b = GraphBuilder("weights")
    x, c = (b(ops.Input(n, DType.F32, (3,))) for n in "xc")
    (g,) = gradients(b, arith.multiply(b, x, x), [x], c)
    given = {"x": np.float32([1, 2, 3]), "c": np.float32([1, 0, 2])}
    assert interpret(b.build([("g", g)]), given, {})["g"].tolist() == [2, 0, 12]


def test_what_does_not_depend_costs_nothing() -> None:
    b = GraphBuilder("none")
    x, other = scalar(b), b(ops.Input("other", DType.F32, (2, 3)))
    y = b(ops.Exp(), b(ops.StopGradient(), x))
    before = len(b.nodes)
    found = gradients(b, arith.add(b, y, x), [x, other])
    graph = b.build([("x", found[0]), ("other", found[1])], prune=True)
    given = {"x": np.array(3.0), "other": np.ones((2, 3), np.float32)}
    outputs = interpret(graph, given, {})
    assert outputs["x"] == 1.0
    assert not outputs["other"].any()
    assert "exp" not in {n.op.name for n in graph.nodes[before:]}


def test_stop_gradient_is_gone_when_its_work_is_done() -> None:
    b = GraphBuilder("stopped")
    x = scalar(b)
    graph = b.build([("y", b(ops.StopGradient(), b(ops.Exp(), x)))])
    assert [n.op.name for n in canonicalise(graph).nodes] == ["input", "exp"]


def test_integers_carry_nothing() -> None:
    b = GraphBuilder("integers")
    x = b(ops.Input("x", DType.F32, (4,)))
    n = arith.convert(b, x, DType.I32)
    y = arith.sum(b, arith.multiply(b, x, arith.convert(b, n, DType.F32)))
    (g,) = gradients(b, y, [x])
    assert interpret(b.build([("g", g)]), {"x": np.float32([0.5, 1.5, 2.5, 3.5])}, {})[
        "g"
    ].tolist() == [0, 1, 2, 3]


def test_rejections() -> None:
    b = GraphBuilder("rejections")
    x, i = b(ops.Input("x", DType.F32, (2,))), b(ops.Input("i", DType.I64, ()))
    y = arith.sum(b, x)
    for bad in (lambda: gradients(b, x, [x]), lambda: gradients(b, y, [i]),
                lambda: gradients(b, i, [x]), lambda: gradients(b, x, [x], y)):  # fmt: skip
        with pytest.raises(OpError) as caught:
            bad()
        assert caught.value.code == "E0812"


def _windows(n: int | Dim, h: int | Dim, w: int | Dim) -> Graph:
    """Convolution, pooling, a slice, a product and a mean of an image."""
    b = GraphBuilder("windows", {"N": Bounds(), "H": Bounds(8), "W": Bounds(8)})
    x = b(ops.Input("x", DType.F64, (n, 2, h, w)))
    weight = b(ops.Parameter("w", DType.F64, (4, 1, 3, 2), "zeros"))
    conv = ops.ConvGeneral((2, 3), ((1, 0), (0, 2)), (1, 1), (2, 1), 2, False)
    y = b(ops.Tanh(), b(conv, x, weight))
    y = b(ops.MaxPool((2, 2), (2, 1), ((1, 0), (0, 1)), (1, 1)), y)
    y = b(ops.AvgPool((2, 1), (1, 2), ((1, 1), (0, 0)), (1, 1), False, False), y)
    shape = b.type_of(y).shape
    limit = (*shape[:2], shape[2], shape[3])
    y = b(ops.Slice((0, 1, shape[2] - 1, 0), limit, (1, 1, 1, 2)), y)
    y = arith.mean(b, b(ops.ReduceProd((3,)), y))
    (by_x, by_w) = gradients(b, y, [x, weight])
    return b.build([("y", y), ("x", by_x), ("w", by_w)])


@pytest.mark.parametrize(("n", "h", "w"), [(1, 8, 9), (2, 11, 12), (3, 10, 14)])
def test_named_dims_mean_what_numbers_mean(n: int, h: int, w: int) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(n, 2, h, w)), rng.normal(size=(4, 1, 3, 2))
    named = _windows(*(Dim.symbol(s) for s in "NHW"))
    verify(named)
    want = interpret(_windows(n, h, w), {"x": x}, {"w": weight}, {"N": 1, "H": 8, "W": 8})
    found = interpret(named, {"x": x}, {"w": weight})
    for key in "yxw":
        np.testing.assert_allclose(found[key], want[key], rtol=1e-12, atol=1e-14)


def _lookups(n: int | Dim, t: int | Dim) -> Graph:
    """Attention over looked up rows, resized, joined, gathered, scattered, cut dynamically, differentiated twice."""
    b = GraphBuilder("lookups", {"N": Bounds(), "T": Bounds(3)})
    tokens = b(ops.Input("tokens", DType.I64, (n, t)))
    table = b(ops.Parameter("table", DType.F64, (5, 4), "zeros"))
    rows = arith.reshape(b, b(ops.Take(0), table, tokens), (n, 1, t, 4))
    seen = b(ops.Attention(0.5, True), rows, rows, rows)
    wide = b(ops.Resize((t * 2, 3), "bilinear"), b(ops.Resize((t, 5)), seen))
    joined = b(ops.Concatenate(2), b(ops.Softmax(3), wide), b(ops.Reverse((2,)), wide))
    at = arith.reshape(b, tokens, (n, 1, t, 1))
    picked = b(ops.TakeAlongAxis(2), joined, arith.broadcast_to(b, at, (n, 1, t, 3)))
    zero = arith.constant(b, 0, DType.I64)
    picked = b(ops.DynamicUpdateSlice(), joined, picked, zero, zero, zero, zero)
    once = b(ops.DynamicSlice((n, 1, t, 3)), picked, zero, zero, zero, zero)
    y = arith.sum(b, b(ops.Sine(), arith.multiply(b, once, once)))
    (g,) = gradients(b, y, [table])
    (h,) = gradients(b, arith.sum(b, arith.multiply(b, g, g)), [table])
    return b.build([("y", y), ("g", g), ("h", h)])


@pytest.mark.parametrize(("n", "t"), [(1, 3), (2, 6)])
def test_named_dims_of_lookups(n: int, t: int) -> None:
    rng = np.random.default_rng(0)
    given = {"tokens": rng.integers(0, 5, (n, t))}
    table = {"table": rng.normal(size=(5, 4))}
    named = _lookups(Dim.symbol("N"), Dim.symbol("T"))
    verify(named)
    want = interpret(_lookups(n, t), given, table, {"N": 1, "T": 3})
    found = interpret(named, given, table)
    for key in "ygh":
        np.testing.assert_allclose(found[key], want[key], rtol=1e-11, atol=1e-13)
    step = 1e-6 * rng.normal(size=(5, 4))
    up, down = (interpret(named, given, {"table": table["table"] + way * step}) for way in (1, -1))
    np.testing.assert_allclose((up["y"] - down["y"]) / 2, (found["g"] * step).sum(), rtol=1e-6)
    slope = sum((k["g"] ** 2).sum() * way for k, way in ((up, 1), (down, -1))) / 2
    np.testing.assert_allclose(slope, (found["h"] * step).sum(), rtol=1e-6)


def _by_x(height: int | Dim) -> None:
    """The gradient by x of a convolution with a window of this height."""
    b = GraphBuilder("window", {"H": Bounds(2, 8)})
    x = b(ops.Input("x", DType.F64, (1, 1, 9, 8)))
    w = b(ops.Input("w", DType.F64, (1, 1, height, 3)))
    gradients(b, arith.sum(b, b(ops.ConvGeneral.simple(2), x, w)), [x])


def test_windows_of_unknown_size_say_so() -> None:
    _by_x(8)
    with pytest.raises(OpError, match="the size is not known") as caught:
        _by_x(Dim.symbol("H"))
    assert caught.value.code == "E0811"


def test_second_derivative_of_a_product_with_zeros() -> None:
    b = GraphBuilder("product")
    x = b(ops.Input("x", DType.F64, (3,)))
    (g,) = gradients(b, b(ops.ReduceProd((0,)), x), [x])
    first = b(ops.Slice((0,), (1,), (1,)), g)
    (h,) = gradients(b, arith.sum(b, first), [x])
    found = interpret(b.build([("g", g), ("h", h)]), {"x": np.array([0.0, 0.0, 3.0])}, {})
    assert found["g"].tolist() == [0, 0, 0]
    assert found["h"].tolist() == [0, 3, 0]


def test_backward_nodes_say_where_they_belong() -> None:
    b = GraphBuilder("scopes")
    layer = (Scope("fc", "Linear"),)
    x = scalar(b)
    with b.at(layer, None):
        y = b(ops.Exp(), x)
    forward = len(b.nodes)
    (g,) = gradients(b, y, [x])
    assert b.node_of(g).scope == (BACKWARD, *layer)
    gradients(b, g, [x])
    scopes = {n.scope for n in b.nodes[forward:]} - {()}
    assert scopes == {(BACKWARD, *layer)}


TEXT = """
model Net {
    input x: f64[N, 3]
    input target: f64[N, 2]
    param w: f64[2, 3] = normal(std=0.5)
    y = tanh(linear(x, w))
    output loss = mean((y - target) ** 2)
    output y = y
}
"""


def test_grad_graph_of_a_model() -> None:
    model = frontend.load(Source("net.nn", TEXT.replace("    output y = y\n", "")))
    graph = grad_graph(model.graph, "loss", ["w", "x"], keep=["loss"])
    assert [name for name, _ in graph.outputs] == ["loss", "grad_w", "grad_x"]
    assert graph == grad_graph(model.graph, "loss", ["w", "x"], keep=["loss"])
    assert verify(graph) is None
    rng = np.random.default_rng(0)
    x, t, w = rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    found = interpret(graph, {"x": x, "target": t}, {"w": w})
    y = np.tanh(x @ w.T)
    back = 2 * (y - t) / y.size * (1 - y * y)
    np.testing.assert_allclose(found["grad_w"], back.T @ x)
    np.testing.assert_allclose(found["grad_x"], back @ w)
    for bad in (("nothing", ["w"]), ("loss", ["nothing"])):
        with pytest.raises(ValueError, match="nothing"):
            grad_graph(model.graph, *bad)


def test_a_wrong_rule_is_caught() -> None:
    class Wrong(ops.Exp):
        def pullback(self, e: GraphEmitter, *args: object) -> tuple[Value, ...]:
            return (e.b(ops.Constant.of(np.float32(1))),)

    b = GraphBuilder("wrong")
    x = b(ops.Input("x", DType.F64, ()))
    with pytest.raises(TypeError, match=r"exp gives f32\[\] as the cotangent of f64\[\]"):
        gradients(b, b(Wrong(), x), [x])
