"""Rows added at positions, compiled, against the reference interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.artifact import ModuleError
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.cpu.features import parse_target
from graphc.lowering.cpu.select import select
from graphc.ops import BroadcastInDim, Constant, Fusion, IndexAdd, Input
from graphc.passes import pipeline

from .compiled import RUNNABLE, check, compile_graph

N = Dim.symbol("N")
CASES: dict[str, tuple[tuple[int, ...], int, DimLike]] = {
    "embedding": ((50, 33), 0, 200),
    "few_rows": ((3, 70), 0, 40),
    "middle": ((4, 20, 9), 1, 31),
    "last": ((6, 17), 1, 25),
    "open": ((40, 16), 0, N),
}


def _graph(shape: tuple[int, ...], axis: int, count: DimLike, zeros: bool) -> Graph:
    b = GraphBuilder("scatter", {"N": Bounds()} if isinstance(count, Dim) else {})
    at = b(Input("at", DType.I64, (count,)))
    updates = b(Input("updates", DType.F32, (*shape[:axis], count, *shape[axis + 1 :])))
    zero = b(Constant.of(np.float32(0)))
    x = b(BroadcastInDim(shape, ()), zero) if zeros else b(Input("x", DType.F32, shape))
    return b.build([("y", b(IndexAdd(axis), x, at, updates))])


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_index_add(name: str, zeros: bool) -> None:
    shape, axis, count = CASES[name]
    graph = _graph(shape, axis, count, zeros)
    rng = np.random.default_rng(0)
    size = 77 if isinstance(count, Dim) else count
    inputs = {
        "at": rng.integers(0, shape[axis], size),
        "updates": rng.standard_normal((*shape[:axis], size, *shape[axis + 1 :])).astype("f4"),
        "x": rng.standard_normal(shape).astype("f4"),
    }
    given = {str(n.op.attributes()["label"]) for n in graph.inputs}
    for target in RUNNABLE:
        check(graph, {k: v for k, v in inputs.items() if k in given}, target)
    fused, _ = pipeline.run(graph)
    (fusion,) = (n for n in fused.nodes if isinstance(n.op, Fusion))
    assert select(fusion.op, frozenset(), parse_target("native")).family == "scatter"


def test_a_position_out_of_range_is_a_fault() -> None:
    module = compile_graph(_graph((50, 33), 0, 200, True), {})
    at = np.zeros(200, np.int64)
    at[7] = 50
    with pytest.raises(ModuleError, match="50 is out of range"):
        module(at=at, updates=np.zeros((200, 33), np.float32))
