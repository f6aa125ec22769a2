"""The verifier names the pass, the invariant, the node and its place."""

from __future__ import annotations

import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node, Scope, Value
from graphc.ir.op import Op
from graphc.ir.types import TensorType
from graphc.ir.verify import VerifyError, verify
from graphc.source import Source
from tests.ir.toy import ToyAdd, ToyInput, ToyPair, ToyRegion

F32 = TensorType(DType.F32, (2,))
X = Node(0, ToyInput("x", DType.F32, (2,)), (), (F32,))
SPAN = Source("net.nn", "a\nbc").span(2, 3)


def graph(*nodes: Node, dims: dict[str, Bounds] | None = None, outputs: int = 1) -> Graph:
    last = Value(nodes[-1].id)
    return Graph("g", dims or {}, nodes, [("y", last)] * outputs)


def add(id: int = 1, a: int = 0, b: int = 0, type: TensorType = F32, op: Op | None = None) -> Node:
    scope = (Scope("fc", "Linear"),)
    return Node(id, op or ToyAdd(), (Value(a), Value(b)), (type,), scope, SPAN)


N = Dim.symbol("N")


@pytest.mark.parametrize(
    ("broken", "invariant"),
    [
        (graph(X, add(id=2)), "ids are ordinals"),
        (graph(X, Node(1, ToyAdd(), (Value(0),), (F32,))), "operand slots are complete"),
        (graph(X, add(type=F32.with_shape((3,)))), "types equal inferred types"),
        (
            graph(
                X, Node(1, ToyInput("x2", DType.F32, (3,)), (), (F32.with_shape((3,)),)), add(2, 1)
            ),
            "operands fit the op",
        ),
        (
            graph(X, Node(1, ToyInput("n", DType.F32, (N,)), (), (F32.with_shape((N,)),))),
            "named dims are declared",
        ),
        (
            graph(X, Node(1, ToyPair(dims=((N,),)), (Value(0), Value(0)), (F32, F32))),  # type: ignore[arg-type]
            "named dims are declared",
        ),
        (graph(X, dims={"N": Bounds(3, 2)}), "dims have sane bounds"),
        (graph(X, Node(1, X.op, (), X.types)), "input labels are unique"),
        (graph(X, outputs=2), "output names are unique"),
    ],
)
def test_invariants(broken: Graph, invariant: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(broken, "my-pass")
    assert caught.value.invariant == invariant
    assert caught.value.after == "my-pass"


def test_message_names_everything() -> None:
    with pytest.raises(VerifyError) as caught:
        verify(graph(X, add(type=F32.with_shape((3,)))), "fold")
    assert caught.value.span is SPAN
    assert str(caught.value) == (
        "after pass fold: types equal inferred types: node 1 (add) of fc from net.nn:2:1: "
        "recorded f32[3], inferred f32[2]"
    )


def test_bodies_are_verified() -> None:
    body = graph(X, add(type=F32.with_shape((3,))))
    b = GraphBuilder("g")
    x = b(ToyInput("x", DType.F32, (2,)))
    outer = b.build([("y", b(ToyRegion("k", body), x))])
    with pytest.raises(
        VerifyError, match=r"node 1 \(region\): in its body g: .*\(body node 1, add"
    ):
        verify(outer)


def test_edges_must_match_operands() -> None:
    good = graph(X, add())
    verify(good)
    good._net.remove_edge(0, 1, key=1)
    with pytest.raises(VerifyError, match="edges match operands"):
        verify(good)
    good._net.add_edge(0, 1, key=1, result=0)
    verify(good)
    good._net.add_edge(0, 1, key=9, result=0)
    with pytest.raises(VerifyError, match=r"edges match operands: node 1.*operand 9"):
        verify(good)
