"""Products of operands of the run, block by block, compiled, against the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.lowering.cpu.emit import ceil_div
from graphc.lowering.cpu.families.dense.blocked_spec import (
    BlockedSpec,
    blocked_scratch,
    choose_blocked,
)
from graphc.lowering.cpu.features import parse_target
from graphc.lowering.cpu.select import select
from graphc.ops import DotGeneral, Fusion, Input, functional
from graphc.passes import pipeline

from .compiled import RUNNABLE, check

N = Dim.symbol("N")
Make = Callable[[GraphBuilder, Callable[..., Value]], Value]


def _dot(lhs: tuple[int, ...], rhs: tuple[int, ...]) -> DotGeneral:
    return DotGeneral((), (), lhs, rhs)


CASES: dict[str, Make] = {
    # gradients of weights: one block, several, tails of rows, columns and depth, an open depth
    "turned": lambda b, x: b(_dot((0,), (0,)), x("y", 200, 130), x("x", 200, 70)),
    "long_rows": lambda b, x: b(_dot((0,), (0,)), x("y", 500, 130), x("x", 500, 620)),
    "blocks": lambda b, x: b(_dot((0,), (0,)), x("y", 1030, 97), x("x", 1030, 67)),
    "open_depth": lambda b, x: b(_dot((0,), (0,)), x("y", N, 128), x("x", N, 256)),
    # the depth in an order of its own in each operand, as batch and time have in a recurrence
    "two_depths": lambda b, x: b(_dot((0, 1), (1, 0)), x("y", 20, 30, 96), x("x", 30, 20, 64)),
    "open_depths": lambda b, x: b(_dot((0, 1), (1, 0)), x("y", 24, N, 96), x("x", N, 24, 64)),
    # gradients of inputs: rows in place
    "rows": lambda b, x: b(_dot((1,), (0,)), x("y", 150, 300), x("x", 300, 130)),
    "deep_rows": lambda b, x: b(_dot((1,), (0,)), x("y", 75, 1100), x("x", 1100, 64)),
    "any_rows": lambda b, x: b(_dot((1,), (0,)), x("y", N, 80), x("x", 80, 144)),
    "columns": lambda b, x: b(_dot((1,), (1,)), x("y", 90, 1100), x("x", 72, 1100)),
    "turned_columns": lambda b, x: b(_dot((0,), (1,)), x("y", 230, 96), x("x", 72, 230)),
}


def _graph(make: Make) -> Graph:
    """A product with an epilogue that reads its own position."""
    b = GraphBuilder("blocked", {})

    def operand(name: str, *shape: DimLike) -> Value:
        if N in shape:
            b.dims = {"N": Bounds()}
        return b(Input(name, DType.F32, shape))

    y = make(b, operand)
    w = operand("w", *b.type_of(y).shape)
    return b.build([("result", functional.add(b, y, functional.multiply(b, w, 0.5)))])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", RUNNABLE)
def test_blocked_products(name: str, target: str) -> None:
    graph = _graph(CASES[name])
    rng = np.random.default_rng(0)
    for n in (1, 301) if graph.dims else (0,):
        inputs = {
            str(node.op.attributes()["label"]): rng.standard_normal(
                [n if isinstance(d, Dim) else d for d in node.types[0].shape]
            ).astype(np.float32)
            for node in graph.inputs
        }
        check(graph, inputs, target, 5e-6)
    fused, _ = pipeline.run(graph)
    (kernel,) = [
        select(node.op, frozenset(), parse_target(target))
        for node in fused.nodes
        if isinstance(node.op, Fusion) and node.op.kind == "dot_general"
    ]
    assert kernel.family == "blocked_product"


def test_small_products_are_left_to_others() -> None:
    target = parse_target("x86-64-v3")
    for m, n, k in ((8, 256, 1024), (256, 8, 1024), (256, 256, 4), (64, 32, 16)):
        assert choose_blocked(BlockedSpec(m, n, (k,), True), target) is None


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_tasks_cover_the_result_and_share_evenly(target: str) -> None:
    for m, n, k in ((1024, 256, 1024), (4000, 256, 1024), (512, 784, 128)):
        spec = BlockedSpec(m, n, (k,), True)
        tile = choose_blocked(spec, parse_target(target))
        assert tile is not None
        chunks = ceil_div(ceil_div(m, tile.mr), tile.rows)
        groups = ceil_div(ceil_div(n, tile.nr), tile.panels)
        assert 4 <= chunks * groups <= 64
        assert blocked_scratch(spec, tile) <= 8 << 20
