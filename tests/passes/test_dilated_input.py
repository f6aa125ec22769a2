"""Transposed convolutions become products of patches, or convolutions padded by less than an element."""

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ops import ConvGeneral, Input, Parameter
from graphc.passes.dilated_input import fill_holes
from graphc.reference import interpret

N = Dim.symbol("N")


def transposed(kernel, stride, padding, output_padding=0, groups=1, rank=2):
    """The graph of a ConvTranspose, channels last, as the frontend writes it."""
    b = GraphBuilder("t", {"N": Bounds()})
    x = b(Input("x", DType.F32, (N, *(5, 4, 3)[:rank], 4)))
    w = b(Parameter("w", DType.F32, (6, 4 // groups, *(kernel,) * rank), "normal()"))
    pad = (kernel - 1 - padding, kernel - 1 - padding + output_padding)
    ones = (1,) * rank
    op = ConvGeneral(ones, (pad,) * rank, (stride,) * rank, ones, groups, True)
    return b.build([("y", b(op, x, w))])


@pytest.mark.parametrize(
    ("arguments", "ops"),
    [
        ({"kernel": 2, "stride": 2, "padding": 0}, ["dot_general", "transpose", "reshape"]),
        ({"kernel": 3, "stride": 3, "padding": 0, "rank": 1}, ["dot_general", "reshape"]),
        ({"kernel": 4, "stride": 2, "padding": 1}, ["pad", "conv_general"]),
        ({"kernel": 3, "stride": 2, "padding": 1, "output_padding": 1}, ["pad", "conv_general"]),
        ({"kernel": 2, "stride": 2, "padding": 0, "groups": 2}, ["conv_general"]),
        ({"kernel": 1, "stride": 2, "padding": 0}, ["conv_general"]),
    ],
)
def test_holes_are_stepped_over_and_results_stay(arguments, ops):
    graph = transposed(**arguments)
    result = fill_holes(graph)
    rng = np.random.default_rng(0)
    (x,), (w,) = graph.inputs, graph.parameters
    inputs = {"x": rng.standard_normal(x.types[0].concrete({"N": 2})).astype(np.float32)}
    weights = {"w": rng.standard_normal(w.types[0].shape).astype(np.float32)}
    expected = interpret(graph, inputs, weights)["y"]
    np.testing.assert_allclose(interpret(result, inputs, weights)["y"], expected, atol=1e-5)
    names = [n.op.name for n in result.nodes]
    assert all(name in names for name in ops)
    convs = [n.op for n in result.nodes if isinstance(n.op, ConvGeneral)]
    for op in convs:
        assert all(n < s for pair, s in zip(op.padding, op.lhs_dilation, strict=True) for n in pair)


def test_other_convolutions_stay_the_very_same_graph():
    graph = transposed(3, 1, 1)
    assert fill_holes(graph) is graph
