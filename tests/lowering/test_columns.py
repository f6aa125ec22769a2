"""Sums over columns, several in one kernel, compiled, against the reference interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.autodiff import gradients
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.cpu.features import parse_target
from graphc.lowering.cpu.select import select
from graphc.ops import BatchNorm, Fusion, Input, Tanh, Variance, arith
from graphc.passes import pipeline

from .compiled import RUNNABLE, Array, check, compare, compile_graph

N = Dim.symbol("N")


def _norm(batch: DimLike, channels: int, *spatial: int) -> Graph:
    """A batch norm by the batch's own statistics, its gradients, and its next running mean."""
    b = GraphBuilder("norm", {"N": Bounds()} if isinstance(batch, Dim) else {})
    shape = (batch, *spatial, channels)
    x, g = (b(Input(name, DType.F32, shape)) for name in ("x", "g"))
    w, bias, running = (b(Input(name, DType.F32, (channels,))) for name in ("w", "bias", "running"))
    axes = tuple(range(len(shape) - 1))
    mean, var = arith.mean(b, x, axes), b(Variance(axes), x)
    y = b(Tanh(), b(BatchNorm(len(axes), 1e-5), x, mean, var, w, bias))
    found = gradients(b, arith.sum(b, arith.multiply(b, y, g)), [x, w, bias])
    moved = arith.add(b, arith.multiply(b, running, 0.9), arith.multiply(b, mean, 0.1))
    names = ("y", "by_x", "by_w", "by_bias", "moved")
    return b.build(list(zip(names, (y, *found, moved), strict=True)))


def _inputs(graph: Graph, size: int = 5) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    found = {}
    for node in graph.inputs:
        shape = [size if isinstance(d, Dim) else d for d in node.types[0].shape]
        found[str(node.op.attributes()["label"])] = rng.standard_normal(shape).astype(np.float32)
    return found


CASES: dict[str, tuple[DimLike, int, tuple[int, ...]]] = {
    "images": (4, 48, (9, 7)),
    "few_channels": (6, 5, (11, 12)),
    "rows": (70, 37, ()),
    "open_batch": (N, 20, (6, 6)),
    "wide": (3, 530, (2, 2)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", RUNNABLE)
def test_batch_norm_and_its_gradients(name: str, target: str) -> None:
    batch, channels, spatial = CASES[name]
    graph = _norm(batch, channels, *spatial)
    check(graph, _inputs(graph), target, 2e-5)
    fused, _ = pipeline.run(graph)
    fusions = [n.op for n in fused.nodes if isinstance(n.op, Fusion)]
    families = [select(op, frozenset(), parse_target(target)).family for op in fusions]
    assert families.count("columns") == 2, "statistics, and the sums on the way back"


def test_sums_of_one_operand_join_and_stay_accurate() -> None:
    b = GraphBuilder("sums")
    x, y = (b(Input(name, DType.F32, (40_000, 6))) for name in "xy")
    one, two = arith.sum(b, x, 0), arith.sum(b, arith.multiply(b, x, y), 0)
    graph = b.build([("one", one), ("two", two), ("both", arith.multiply(b, one, two))])
    fused, _ = pipeline.run(graph)
    (fusion,) = (n for n in fused.nodes if isinstance(n.op, Fusion))
    assert len(fusion.types) == 3
    inputs = {k: v + np.float32(3) for k, v in _inputs(graph).items()}
    module = compile_graph(graph, {})
    compare(module, graph, inputs, {}, 5e-7)


def test_kernels_with_another_between_them_stay_apart() -> None:
    b = GraphBuilder("apart")
    x = b(Input("x", DType.F32, (50, 8)))
    total = arith.sum(b, x, 0)
    weights = arith.sum(b, b(Tanh(), arith.as_spread(b, total, (8, 8), (1,))), 1)
    shifted = arith.subtract(b, x, arith.as_spread(b, weights, (50, 8), (1,)))
    graph = b.build([("total", total), ("late", arith.sum(b, shifted, 0))])
    check(graph, _inputs(graph), "native", 1e-5)
