"""Pointwise and depthwise convolutions in one kernel: the same results, in guarded memory, and only where that fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from graphc.artifact import open as open_module
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.lowering.cpu.families.convolution import expand
from graphc.lowering.cpu.families.convolution.expand_select import convolutions
from graphc.lowering.cpu.features import parse_target
from graphc.lowering.join import join_kernels
from graphc.ops import BroadcastInDim, ConvGeneral, Fusion, Hardtanh, Input, Parameter, functional
from graphc.passes import pipeline
from graphc.passes.fuse import static_nodes

from .compiled import RUNNABLE, compare, compile_graph, random_parameters

N = Dim.symbol("N")


@dataclass(frozen=True)
class Case:
    """What is widened and filtered."""

    size: tuple[int, int] = (12, 10)
    channels: int = 7
    wide: int = 32
    batch: DimLike = 2
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    narrow: bool = False  # what comes after: a product, or a padded convolution


CASES = {
    "same": Case(),
    "strided": Case((15, 17), stride=2),
    "without_border": Case((14, 9), padding=0),
    "five_taps": Case((16, 16), wide=48, kernel=5, padding=2),
    "any_batch": Case((8, 8), batch=N),
    "stored_with_a_border": Case((8, 12), wide=96, narrow=True),
}


def _graph(case: Case) -> Graph:
    b = GraphBuilder("expand", {"N": Bounds()} if isinstance(case.batch, Dim) else {})
    x = b(Input("x", DType.F32, (case.batch, case.channels, *case.size)))

    def layer(
        x: Value, name: str, features: int, kernel: int, groups: int = 1, **how: int
    ) -> Value:
        channels = b.type_of(x).shape[1]
        assert isinstance(channels, int)
        w = b(
            Parameter(name, DType.F32, (features, channels // groups, kernel, kernel), "normal()")
        )
        y = b(ConvGeneral.simple(2, groups=groups, channels_last=False, **how), x, w)
        bias = b(Parameter(f"{name}.bias", DType.F32, (features,), "normal()"))
        moved = functional.add(b, y, b(BroadcastInDim(b.type_of(y).shape, (1,)), bias))
        return b(Hardtanh(0.0, 6.0), moved)

    y = layer(x, "expand", case.wide, 1)
    how = {"strides": case.stride, "padding": case.padding}
    y = layer(y, "filter", case.wide, case.kernel, groups=case.wide, **how)
    if case.narrow:
        y = layer(y, "after", 5, 3, padding=1)
    return b.build([("y", y)])


def _joined(graph: Graph, target: str = "x86-64-v3") -> list[Node]:
    """The kernels with two convolutions in them."""
    fused, _ = pipeline.run(graph)
    joined = join_kernels(fused, static_nodes(fused), parse_target(target))
    return [
        n for n in joined.nodes if isinstance(n.op, Fusion) and len(convolutions(n.op.body)) == 2
    ]


@pytest.mark.usefixtures("all_processors")
@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("name", CASES)
def test_joined(name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "_NEAR_BYTES", 0)
    monkeypatch.setattr(expand, "_SEAM", 3.0)
    monkeypatch.setattr(expand, "_REGION_BYTES", 24 * 1024)  # several blocks of rows
    case = CASES[name]
    graph = _graph(case)
    assert len(_joined(graph, target)) == 1
    parameters = random_parameters(graph)
    images = 3 if isinstance(case.batch, Dim) else case.batch
    shape = (images, case.channels, *case.size)
    inputs = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    module = compile_graph(graph, parameters, target, threads=3)
    # Clipping at 6 leaves the rounding of sums that were far beyond.
    compare(module, graph, inputs, parameters, tolerance=2e-5)
    with open_module(module.path, threads=2, debug=True) as guarded:
        compare(guarded, graph, inputs, parameters, tolerance=2e-5)


def test_small_images_stay_two_kernels() -> None:
    assert not _joined(_graph(Case()))
    assert len(_joined(_graph(Case((112, 112), wide=96)))) == 1


def test_only_what_fits_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "_NEAR_BYTES", 0)
    assert _joined(_graph(Case()))
    assert not _joined(_graph(Case(wide=30)))  # channels that fill no panels
    assert not _joined(
        _graph(Case((13, 12), kernel=9, padding=4)), "x86-64-v4"
    )  # 13 rows: one block, or 13


def test_a_wide_image_with_another_reader_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "_NEAR_BYTES", 0)
    graph = _graph(Case(padding=0))
    wide = next(n for n in graph.nodes if n.op.name == "hardtanh").values[0]
    assert not _joined(Graph(graph.name, graph.dims, graph.nodes, [*graph.outputs, ("wide", wide)]))
