"""The builder functions: NumPy's conventions, scalars, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, OpError
from graphc.ops import functional as f
from graphc.reference import interpret
from tests.ops.test_dot import through

N, H = Dim.symbol("N"), Dim.symbol("H")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4))
ROW = RNG.normal(size=(4,))
ONE = RNG.normal(size=(2, 3, 1))

CASES: list[tuple[str, Callable[..., Value], Callable[..., Array], list[Array]]] = [
    ("add", f.add, np.add, [X, ROW]),
    ("subtract", f.subtract, np.subtract, [ROW, X]),
    ("multiply", f.multiply, np.multiply, [X, ONE]),
    ("divide", f.divide, np.divide, [X, X + 9]),
    ("scalar right", lambda b, x: f.subtract(b, x, 1), lambda x: x - 1, [X]),
    ("scalar left", lambda b, x: f.divide(b, 1.0, x), lambda x: 1 / x, [X]),
    ("square", lambda b, x: f.power(b, x, 2), lambda x: x**2, [X]),
    ("seventh", lambda b, x: f.power(b, x, 7), lambda x: x**7, [X]),
    ("root", lambda b, x: f.power(b, x, 0.5), np.sqrt, [X**2]),
    ("power", f.power, np.power, [np.abs(X), ROW]),
    ("exponential", lambda b, x: f.power(b, 2.0, x), lambda x: 2.0**x, [X]),
    ("maximum", f.maximum, np.maximum, [X, ROW]),
    ("minimum", lambda b, x: f.minimum(b, x, 0), lambda x: np.minimum(x, 0), [X]),
    ("compare", lambda b, x, y: f.compare(b, "lt", x, y), np.less, [X, ROW]),
    (
        "select",
        lambda b, x, y: f.select(b, f.compare(b, "gt", x, 0), y, 0.5),
        lambda x, y: np.where(x > 0, y, 0.5),
        [X, ROW],
    ),
    ("sum", lambda b, x: f.sum(b, x, -1), lambda x: x.sum(-1), [X]),
    ("sum kept", lambda b, x: f.sum(b, x, (0, -1), True), lambda x: x.sum((0, 2), keepdims=True), [X]),
    ("sum all", f.sum, np.sum, [X]),
    ("sum none", lambda b, x: f.sum(b, x, ()), lambda x: x, [X]),
    ("max", f.max, np.max, [X]),
    ("min", lambda b, x: f.min(b, x, 0), lambda x: x.min(0), [X]),
    ("mean", lambda b, x: f.mean(b, x, (1, 2)), lambda x: x.mean((1, 2)), [X]),
    ("reshape", lambda b, x: f.reshape(b, x, (6, 4)), lambda x: x.reshape(6, 4), [X]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "expected", "arrays"), [pytest.param(*c[1:], id=c[0]) for c in CASES]
)
def test_functions_are_numpys(build: Any, expected: Any, arrays: list[Array]) -> None:
    np.testing.assert_allclose(
        through(build, *arrays), np.asarray(expected(*arrays)), rtol=1e-12, atol=1e-12
    )


def test_integer_powers_multiply() -> None:
    x = np.array([3, -2], np.int32)
    assert through(lambda b, v: f.power(b, v, 3), x).tolist() == [27, -8]


def test_nothing_is_emitted_where_nothing_changes() -> None:
    b = GraphBuilder("g")
    x = b(o.Input("x", DType.F32, (N, 3)))
    same = [
        f.reshape(b, x, (N, 3)),
        f.convert(b, x, DType.F32),
        f.broadcast_to(b, x, (N, 3)),
    ]
    assert same == [x] * len(same)
    assert len(b.nodes) == 1


def test_scalars_take_the_tensors_type_if_they_fit() -> None:
    b = GraphBuilder("g")
    x = b(o.Input("x", DType.U8, (2,)))
    assert b.type_of(f.add(b, x, 3.0)).dtype is DType.U8
    for value, words in ((0.5, "0.5 is no u8"), (256, r"256 does not fit in u8 \(0 to 255\)")):
        with pytest.raises(OpError, match=words) as caught:
            f.add(b, x, value)
        assert caught.value.code == "E0206"
    with pytest.raises(OpError, match="at least one tensor"):
        f.add(b, 1, 2)


def test_named_dims_broadcast_against_one_and_themselves_only() -> None:
    assert f.broadcast_shapes((N, 1), (H,), (1, 1)) == (N, H)
    with pytest.raises(OpError) as caught:
        f.broadcast_shapes((N, 4), (H, 4), what="add: operands")
    assert caught.value.message == (
        "add: operands of [N, 4] and [H, 4] do not broadcast: dimension -2 is N and H"
    )
    assert (caught.value.code, caught.value.operand) == ("E0202", 1)


def test_the_help_lines_channels_up() -> None:
    b = GraphBuilder("g")
    x = b(o.Input("x", DType.F32, (N, 64, 8, 8)))
    bias = b(o.Input("bias", DType.F32, (64,)))
    with pytest.raises(OpError, match=r"add: operands of \[N, 64, 8, 8\] and \[64\]") as caught:
        f.add(b, x, bias)
    assert caught.value.help == "reshape [64] to [64, 1, 1] to line it up with [N, 64, 8, 8]"


def test_a_mean_over_named_dims_divides_by_their_size() -> None:
    b = GraphBuilder("g")
    x = b(o.Input("x", DType.F32, (N, H)))
    graph = b.build([("y", f.mean(b, x))])
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert interpret(graph, {"x": data}, {})["y"] == data.mean()


def test_half_precision_means_do_not_overflow() -> None:
    x = np.full(1000, 1000, np.float16)
    assert through(f.mean, x).item() == 1000


@pytest.mark.parametrize(
    ("build", "code", "words"),
    [
        (lambda b, x: f.sum(b, x, 2), "E0211", "axis 2 is out of range for [N, 4]"),
        (lambda b, x: f.sum(b, x, (0, -2)), "E0211", "repeat"),
        (lambda b, x: f.broadcast_to(b, x, (4,)), "E0202", "too many dimensions"),
        (lambda b, x: f.broadcast_to(b, x, (H, 4)), "E0202", "[N, 4] does not broadcast"),
        (lambda b, x: f.power(b, b(o.ArgMax(0), x), 0.5), "E0206", "0.5 is no i64"),
    ],
)
def test_refusals(build: Any, code: str, words: str) -> None:
    b = GraphBuilder("g")
    x = b(o.Input("x", DType.F32, (N, 4)))
    with pytest.raises(OpError) as caught:
        build(b, x)
    assert caught.value.code == code
    assert words in caught.value.message
