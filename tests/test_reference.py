"""The interpreter: binding of names and dims, errors, memory."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from graphc import ops as o
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node
from graphc.ir.op import Array
from graphc.ops import functional as f
from graphc.reference import InputError, bind_dims, evaluate_values, interpret

N, T, H = (Dim.symbol(n) for n in "NTH")
F32 = DType.F32


def linear() -> Graph:
    b = GraphBuilder("linear", {"N": Bounds(1, 8)})
    x = b(o.Input("x", F32, (N, 3)))
    w = b(o.Parameter("fc.weight", F32, (2, 3), "zeros()"))
    bias = b(o.Parameter("fc.bias", F32, (2,), "zeros()"))
    b(o.Parameter("unused", F32, (5,), "zeros()"))
    y = b(o.DotGeneral((), (), (1,), (1,)), x, f.multiply(b, w, 2.0))
    y = f.add(b, y, bias)
    return b.build([("y", y), ("x", x)])


X = np.arange(6, dtype=np.float32).reshape(2, 3)
W = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.array([1, 2], np.float32)}


def shaped(*shape: DimLike, **bounds: Bounds) -> Graph:
    b = GraphBuilder("g", bounds)
    x = b(o.Input("x", F32, tuple(shape)))
    return b.build([("x", x)])


def test_outputs_by_name() -> None:
    found = interpret(linear(), {"x": X}, W)
    assert found["y"].tolist() == [[7, 8], [25, 26]]
    assert list(found) == ["y", "x"]


def test_outputs_are_the_callers() -> None:
    found = interpret(linear(), {"x": X}, W)
    assert found["x"] is not X
    found["x"][:] = 0
    assert X[0, 1] == 1


def test_every_node_that_runs_is_observed_in_order() -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def observe(node: Node, results: tuple[Array, ...]) -> None:
        seen.append((node.op.name, results[0].shape))

    interpret(linear(), {"x": X}, W, observe=observe)
    assert seen == [
        ("constant", ()),
        ("broadcast_in_dim", (2, 3)),
        ("multiply", (2, 3)),
        ("dot_general", (2, 2)),
        ("broadcast_in_dim", (2, 2)),
        ("add", (2, 2)),
    ]


def test_intermediates_are_freed_after_their_last_use() -> None:
    b = GraphBuilder("g")
    x = b(o.Input("x", F32, (3,)))
    y = b(o.Exp(), b(o.Exp(), b(o.Exp(), x)))
    alive: list[int] = []
    refs: list[weakref.ref[Array]] = []

    def observe(node: Node, results: tuple[Array, ...]) -> None:
        refs.extend(weakref.ref(r) for r in results)
        alive.append(sum(r() is not None for r in refs))

    interpret(b.build([("y", y)]), {"x": np.zeros(3, np.float32)}, {}, observe=observe)
    assert alive == [1, 2, 2]


def test_a_fusion_with_named_dims_runs() -> None:
    inner = GraphBuilder("body")
    v = inner(o.Input("v", F32, (N, 3)))
    body = inner.build([("m", f.mean(inner, v, 0))])
    b = GraphBuilder("g", {"N": Bounds()})
    x = b(o.Input("x", F32, (N, 3)))
    graph = b.build([("y", b(o.Fusion("reduce", body), x))])
    assert interpret(graph, {"x": X}, {})["y"].tolist() == [1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ("inputs", "weights", "message"),
    [
        ({}, W, "missing input: x"),
        ({"x": X, "z": X}, W, "unknown input: z"),
        ({"x": X}, {}, "missing parameters: fc.weight, fc.bias"),
        ({"x": X.astype(np.float64)}, W, r"input x is f32\[N, 3\] and got an array of float64"),
        ({"x": X[:, :2]}, W, r"dimension 1 of input x is 3 and got 2"),
        ({"x": X[0]}, W, r"input x is f32\[N, 3\] and got shape \[3\]"),
        ({"x": X}, {**W, "fc.bias": np.zeros(3, np.float32)}, r"parameter fc.bias is f32\[2\]"),
        ({"x": np.zeros((9, 3), np.float32)}, W, "N = 9 must be at least 1 and at most 8"),
        ({"x": np.zeros((0, 3), np.float32)}, W, "N = 0 must be at least 1"),
    ],
)
def test_what_does_not_fit_is_named(
    inputs: dict[str, Array], weights: dict[str, Array], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        interpret(linear(), inputs, weights)


def test_an_unused_parameter_is_not_needed() -> None:
    assert interpret(linear(), {"x": X}, W)["y"].shape == (2, 2)


def test_dims_are_solved_from_linear_forms() -> None:
    graph = shaped(N * T, 16 * H + 2, N, T // 2)
    x = np.zeros((6, 50, 2, 1), np.float32)
    assert bind_dims(graph, {"x": x}) == {"N": 2, "T": 3, "H": 3}


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        ((16 * H,), (50,), r"dimension 0 of input x is 16\*H and cannot be 50 for any H"),
        ((H + 5,), (3,), "cannot be 3 for any H"),
        ((N, N), (2, 3), "dimension 1 of input x is N and got 3, but is 2 with N = 2 from dimension 0"),
        ((N, T // 2), (2, 3), "the inputs do not tell T"),
        ((N * T,), (6,), "the inputs do not tell N, T"),
        ((N, N * T), (0, 0), "the inputs do not tell T"),
    ],
)  # fmt: skip
def test_dims_that_cannot_be_bound(
    shape: tuple[DimLike, ...], sizes: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bind_dims(shaped(*shape), {"x": np.zeros(sizes, np.float32)})


def test_dims_that_no_input_shows_are_given() -> None:
    b = GraphBuilder("g", {"T": Bounds()})
    graph = b.build([("y", b(o.Iota(DType.I64, (T,), 0)))])
    assert interpret(graph, {}, {}, {"T": 3})["y"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="do not tell T"):
        interpret(graph, {}, {})
    given = shaped(N)
    with pytest.raises(InputError, match="is 3 with N = 3 from the dims given"):
        bind_dims(given, {"x": np.zeros(2, np.float32)}, {"N": 3})


def test_values_of_parameters_are_computed_alone() -> None:
    graph = linear()
    (doubled,) = (n for n in graph.nodes if n.op.name == "multiply")
    found = evaluate_values(graph, doubled.values, {"fc.weight": W["fc.weight"]})
    assert found[doubled.values[0]].tolist() == [[2, 2, 2]] * 2
    with pytest.raises(InputError, match=r"missing parameter: fc\.weight"):
        evaluate_values(graph, doubled.values, {})
    with pytest.raises(ValueError, match="no value for x"):
        evaluate_values(graph, [graph.outputs[0][1]], W, {"N": 2})


def test_an_index_out_of_range_is_an_error() -> None:
    b = GraphBuilder("g")
    x = b(o.Input("x", DType.I64, (2,)))
    table = b(o.Constant.of(np.eye(3, dtype=np.float32)))
    graph = b.build([("y", b(o.Take(0), table, x))])
    with pytest.raises(IndexError, match=r"take: index 7 is not in 0\.\.2"):
        interpret(graph, {"x": np.array([0, 7])}, {})
