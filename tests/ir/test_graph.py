"""Graphs, builders and rewriting."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node, Scope, Value
from graphc.ir.op import OpError
from graphc.ir.rewrite import Rewriter, rewrite
from tests.ir.toy import ToyAdd, ToyInput, ToyPair, ToyRegion

N = Dim.symbol("N")


def diamond() -> tuple[Graph, dict[str, Value]]:
    b = GraphBuilder("diamond", {"N": Bounds()})
    x = b(ToyInput("x", DType.F32, (N, 2)))
    with b.at((Scope("layer", "Block"), Scope("0", "Add")), None):
        left = b(ToyAdd(), x, x)
    swapped, same = b.emit(ToyPair(), x, left)
    dead = b(ToyAdd(), left, left)
    out = b(ToyAdd(), swapped, same)
    names = {"x": x, "left": left, "swapped": swapped, "same": same, "dead": dead, "out": out}
    return b.build([("y", out)]), names


def test_lookup() -> None:
    graph, v = diamond()
    assert len(graph) == 5
    assert [n.op.name for n in graph.nodes] == ["input", "add", "pair", "add", "add"]
    assert graph.type_of(v["out"]).shape == (N, 2)
    assert graph.node(1).path == "layer.0"
    assert [(n.id, s) for n, s in graph.users(0)] == [(1, 0), (1, 1), (2, 0)]
    assert [(n.id, s) for n, s in graph.uses(v["same"])] == [(4, 1)]
    assert graph.is_output(v["out"])
    assert not graph.is_output(v["left"])
    assert [n.id for n in graph.inputs] == [0]
    assert graph.parameters == ()
    assert repr(graph) == "<Graph diamond: 5 nodes>"


def test_networkx_is_a_copy() -> None:
    graph, _ = diamond()
    graph.networkx.remove_node(0)
    assert len(graph.networkx) == 5


def test_ill_typed_node_cannot_be_built() -> None:
    b = GraphBuilder("g")
    x, y = (b(ToyInput(n, DType.F32, (d,))) for n, d in (("x", 1), ("y", 2)))
    with pytest.raises(OpError, match=r"add of f32\[1\] and f32\[2\]"):
        b(ToyAdd(), x, y)
    with pytest.raises(OpError, match="add takes 2 operands and got 1"):
        b(ToyAdd(), x)


def test_values_must_exist_and_come_first() -> None:
    b = GraphBuilder("g")
    x = b(ToyInput("x", DType.F32, ()))
    with pytest.raises(ValueError, match="output 'y' refers to"):
        b.build([("y", Value(7))])
    node = b.node_of(x)
    with pytest.raises(ValueError, match="defined twice"):
        Graph("g", {}, [node, node], [])
    loop = Node(1, ToyAdd(), (Value(1), x), node.types)
    with pytest.raises(ValueError, match="node 1 uses node 1 before it is made"):
        Graph("g", {}, [node, loop], [])


def test_equality_ignores_places() -> None:
    assert diamond()[0] == diamond()[0]
    assert hash(diamond()[0]) == hash(diamond()[0])
    graph, v = diamond()
    assert graph != Graph("diamond", graph.dims, graph.nodes, [("z", v["out"])])
    assert graph != Graph("diamond", {"N": Bounds(2)}, graph.nodes, graph.outputs)
    assert graph != "diamond"


def test_fixing_dims() -> None:
    graph, v = diamond()
    fixed = graph.substitute_dims({"N": 4})
    assert dict(fixed.dims) == {}
    assert fixed.type_of(v["out"]).shape == (4, 2)
    b = GraphBuilder("outer", {"N": Bounds()})
    x = b(ToyInput("x", DType.F32, (N,)))
    region = b(ToyRegion("k", graph), x)
    inner = b.build([("y", region)]).substitute_dims({"N": 3}).node(1).op
    assert isinstance(inner, ToyRegion)
    assert dict(inner.body.dims) == {}


def test_rewrite_drops_what_is_dead_and_keeps_inputs() -> None:
    graph, _ = diamond()
    new = rewrite(graph, lambda r, node, operands: None)
    assert [n.op.name for n in new.nodes] == ["input", "add", "pair", "add"]
    b = GraphBuilder("g")
    b(ToyInput("unused", DType.F32, ()))
    x = b(ToyInput("x", DType.F32, ()))
    lone = b.build([("y", x)])
    assert rewrite(lone, lambda r, node, operands: None) is lone


def test_rewrite_replaces_and_places() -> None:
    graph, _ = diamond()

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name == "pair":
            return operands[::-1]
        if node.id == 1:
            return (r(ToyAdd(), operands[1], operands[0]),)
        return None

    new = rewrite(graph, rule)
    assert [n.op.name for n in new.nodes] == ["input", "add", "add"]
    assert new.node(1).path == "layer.0"
    assert new.node(2).operands == (Value(1), Value(0))


def test_uses_left_counts_outputs() -> None:
    graph, v = diamond()
    r = Rewriter(graph)
    assert r.users_left(v["out"]) == 1
    assert r.users_left(v["x"]) == 3
