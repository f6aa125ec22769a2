"""Gradients of convolutions by their weights, compiled, against the reference interpreter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.cpu.features import parse_target
from graphc.lowering.cpu.select import select
from graphc.ops import ConvGeneral, ConvWeightGradient, Fusion, Input, functional
from graphc.passes import pipeline

from .compiled import RUNNABLE, check, compile_graph

N = Dim.symbol("N")


@dataclass(frozen=True)
class Case:
    """One convolution, and what the pixels of its cotangent exercise."""

    spatial: tuple[int, ...]
    channels: int
    features: int
    kernel: tuple[int, ...]
    batch: DimLike = 2
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    groups: int = 1
    family: str = "conv_weight"


CASES = {
    "in_one_go": Case((6, 5), 20, 70, (3, 2), padding=1),
    "blocks_and_parts": Case((31, 30), 20, 9, (3, 3), padding=1),
    "taps_merged": Case((19, 24), 3, 40, (5, 7), stride=2, padding=3),
    "outputs_across": Case((12, 12), 6, 16, (5, 5), batch=9),
    "one_channel": Case((28, 28), 1, 6, (5, 5), padding=2),
    "dilated": Case((14, 11), 5, 9, (3, 2), dilation=2, padding=2),
    "grouped": Case((9, 9), 24, 12, (3, 3), padding=1, groups=4),
    "pointwise": Case((8, 8), 48, 33, (1, 1), batch=11),
    "strided_pixel": Case((9, 9), 12, 10, (1, 1), stride=2),
    "open_batch": Case((8, 7), 12, 10, (3, 3), batch=N, padding=1),
    "one_dimension": Case((50,), 10, 18, (5,), stride=2, padding=2),
    "three_dimensions": Case((5, 6, 7), 4, 6, (3, 2, 3), padding=1),
    "depthwise": Case((20, 19), 40, 40, (3, 3), padding=1, groups=40, family="depthwise_weight"),
    "depthwise_large": Case(
        (13, 12), 19, 19, (7, 7), batch=N, padding=3, stride=2, groups=19, family="depthwise_weight"
    ),
}


def _graph(case: Case) -> Graph:
    """A weight gradient plus the weight's decay, and a convolution that reads the same x and border."""
    b = GraphBuilder("gradient", {"N": Bounds()} if isinstance(case.batch, Dim) else {})
    rank = len(case.spatial)
    x = b(Input("x", DType.F32, (case.batch, case.channels, *case.spatial)))
    w = b(Input("w", DType.F32, (case.features, case.channels // case.groups, *case.kernel)))
    conv = ConvGeneral.simple(
        rank,
        strides=case.stride,
        padding=case.padding,
        dilation=case.dilation,
        groups=case.groups,
    )
    shape = conv.infer(b.type_of(x), b.type_of(w))[0].shape
    dy = b(Input("dy", DType.F32, shape))
    given = functional.multiply(b, dy, 0.5)
    op = ConvWeightGradient(
        case.kernel, conv.strides, conv.padding, conv.rhs_dilation, ((0, 0),) * rank, case.groups
    )
    found = b(op, x, given)
    out = functional.add(b, found, functional.multiply(b, w, 0.25))
    return b.build([("dw", out)])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", RUNNABLE)
def test_weight_gradient(name: str, target: str) -> None:
    case = CASES[name]
    graph = _graph(case)
    rng = np.random.default_rng(0)
    inputs = {
        str(n.op.attributes()["label"]): rng.standard_normal(
            [3 if isinstance(d, Dim) else d for d in n.types[0].shape]
        ).astype(np.float32)
        for n in graph.inputs
    }
    check(graph, inputs, target, 3e-6)
    fused, _ = pipeline.run(graph)
    kernels = [
        select(node.op, frozenset(), parse_target(target)).family
        for node in fused.nodes
        if isinstance(node.op, Fusion) and node.op.kind == "conv_weight_gradient"
    ]
    assert kernels == [case.family]


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    graph = _graph(CASES["blocks_and_parts"])
    rng = np.random.default_rng(1)
    inputs = {
        str(n.op.attributes()["label"]): rng.standard_normal(n.types[0].shape).astype(np.float32)
        for n in graph.inputs
    }
    one, three = (compile_graph(graph, {}, threads=n)(**inputs)["dw"] for n in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_a_cotangent_stored_with_a_border_is_read_inside_it() -> None:
    b = GraphBuilder("shared")
    x = b(Input("x", DType.F32, (2, 3, 6, 6)))
    w = b(Input("w", DType.F32, (3, 4, 3, 3)))
    dy = b(Input("dy", DType.F32, (2, 4, 6, 6)))
    given = functional.multiply(b, dy, 0.5)
    pad = ((1, 1), (1, 1))
    by_weight = b(ConvWeightGradient((3, 3), (1, 1), pad, (1, 1), ((0, 0), (0, 0))), x, given)
    by_data = b(ConvGeneral.simple(2, padding=1), given, w)
    graph = b.build([("w", by_weight), ("x", by_data)])
    halos, _ = pipeline.run(graph, until="halo")
    pads = [n for n in halos.nodes if n.op.name == "pad"]
    (found,) = (n.op for n in halos.nodes if isinstance(n.op, ConvWeightGradient))
    assert found.crop == pad and len(pads) == 2
    rng = np.random.default_rng(2)
    inputs = {
        str(n.op.attributes()["label"]): rng.standard_normal(n.types[0].shape).astype(np.float32)
        for n in graph.inputs
    }
    check(graph, inputs)
