"""Products over the slow dimension of both operands, compiled, against the reference interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.cpu.features import parse_target
from graphc.lowering.cpu.select import select
from graphc.ops import DotGeneral, Fusion, Input, Transpose, functional
from graphc.passes import pipeline

from .compiled import RUNNABLE, check

N = Dim.symbol("N")
CASES: dict[str, tuple[tuple[DimLike, ...], int, int]] = {
    "deep": ((600,), 70, 37),
    "powers_of_two": ((256,), 128, 256),
    "slim": ((450,), 10, 5),
    "prime": ((257,), 20, 33),
    "open": ((N,), 24, 40),
    "merged": ((4, 60), 33, 18),
}


def _graph(rows: tuple[DimLike, ...], m: int, n: int) -> Graph:
    """dY^T X plus decay, and X^T dY turned."""
    b = GraphBuilder("long", {"N": Bounds()} if N in rows else {})
    y, x = b(Input("y", DType.F32, (*rows, m))), b(Input("x", DType.F32, (*rows, n)))
    w = b(Input("w", DType.F32, (m, n)))
    depth = tuple(range(len(rows)))
    op = DotGeneral((), (), depth, depth)
    straight = functional.add(b, b(op, y, x), functional.multiply(b, w, 0.5))
    turned = b(Transpose((1, 0)), b(op, x, y))
    return b.build([("straight", straight), ("turned", turned)])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", RUNNABLE)
def test_long_products(name: str, target: str) -> None:
    graph = _graph(*CASES[name])
    rng = np.random.default_rng(0)
    inputs = {
        str(node.op.attributes()["label"]): rng.standard_normal(
            [301 if isinstance(d, Dim) else d for d in node.types[0].shape]
        ).astype(np.float32)
        for node in graph.inputs
    }
    check(graph, inputs, target, 3e-6)
    fused, _ = pipeline.run(graph)
    fusions = [n.op for n in fused.nodes if isinstance(n.op, Fusion)]
    families = [
        select(op, frozenset(), parse_target(target)).family
        for op in fusions
        if op.kind == "dot_general"
    ]
    assert set(families) <= {"long_product", "blocked_product"}
