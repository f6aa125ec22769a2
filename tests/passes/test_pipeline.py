"""The pipeline: order, stopping, reports, and a verifier that names the pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc import frontend
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node
from graphc.ir.types import TensorType
from graphc.ir.verify import VerifyError
from graphc.ops import Add, Input, MaxPoolGradient, Relu
from graphc.passes import pipeline


def example() -> Graph:
    b = GraphBuilder("g")
    x = b(Input("x", DType.F32, (2,)))
    b(Add(), x, x)
    return b.build([("y", b(Relu(), b(Relu(), x)))])


def test_names_are_unique_and_ordered() -> None:
    names = pipeline.names()
    assert len(set(names)) == len(names)
    assert names[:2] == ("merge-loops", "canonicalise")
    assert names[-3:] == ("fuse", "columns", "updates")
    assert names.index("layout") < names.index("transposes") < names.index("halo")


@pytest.mark.parametrize("until", pipeline.names())
def test_stops_after_any_pass(until: str) -> None:
    seen: list[str] = []
    graph, report = pipeline.run(example(), until=until, observe=lambda name, _: seen.append(name))
    assert seen == [step.name for step in report.steps]
    assert seen == list(pipeline.names()[: pipeline.names().index(until) + 1])
    assert report.steps[-1].nodes_after == len(graph)
    assert report.seconds == sum(step.seconds for step in report.steps)


def test_report_counts_nodes_and_says_what_changed() -> None:
    steps = {step.name: step for step in pipeline.run(example())[1].steps}
    assert (steps["canonicalise"].nodes_before, steps["canonicalise"].nodes_after) == (4, 3)
    assert steps["canonicalise"].changed
    assert (steps["simplify"].nodes_before, steps["simplify"].nodes_after) == (3, 2)
    assert not steps["layout"].changed


def test_unknown_pass() -> None:
    with pytest.raises(ValueError, match="there is no pass 'inline'; the passes are merge-loops,"):
        pipeline.run(example(), until="inline")


def test_a_broken_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(graph: Graph) -> Graph:
        *rest, last = graph.nodes
        wrong = Node(last.id, last.op, last.operands, (TensorType(DType.F32, (3,)),))
        return Graph(graph.name, graph.dims, [*rest, wrong], graph.outputs)

    monkeypatch.setattr(pipeline, "simplify", spoil)
    with pytest.raises(VerifyError, match="after pass simplify: types equal inferred types: node"):
        pipeline.run(example())


def test_attention_stays_whole_unless_its_products_run_on_tiles() -> None:
    graph = frontend.load(Path(__file__).parents[2] / "examples" / "bert_base.nn").graph

    def names(tiles: bool) -> set[str]:
        return {n.op.name for n in pipeline.run(graph, until="decompose", tiles=tiles)[0].nodes}

    assert "attention" in names(False) and "softmax" not in names(False)
    assert "softmax" in names(True) and "attention" not in names(True)


@pytest.mark.parametrize(
    ("dtype", "tiles", "whole"),
    [
        (DType.F32, False, True),
        (DType.F64, False, True),
        (DType.F32, True, True),
        (DType.F16, False, False),
    ],
)
def test_the_gradient_of_max_pooling_stays_whole_where_a_kernel_takes_it(
    dtype: DType, tiles: bool, whole: bool
) -> None:
    b = GraphBuilder("g")
    x, given = (b(Input(n, dtype, (1, 2, s, s))) for n, s in (("x", 4), ("dy", 2)))
    dx = b(MaxPoolGradient((2, 2), (2, 2), ((0, 0),) * 2, (1, 1)), x, given)
    graph = b.build([("dx", dx)])
    found = pipeline.run(graph, until="decompose", tiles=tiles)[0]
    names = {n.op.name for n in found.nodes}
    assert ("max_pool_gradient" in names, "slice" in names) == (whole, not whole)
    by_others = next(p for p in pipeline.passes(lambda *_: False) if p.name == "decompose")
    assert "max_pool_gradient" not in {n.op.name for n in by_others.run(graph).nodes}
