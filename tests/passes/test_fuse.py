"""Fusion: what joins what, seen as the list of kernels; results never change."""

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.verify import verify
from graphc.ops import (
    Add,
    BroadcastInDim,
    ConvGeneral,
    DotGeneral,
    Exp,
    Fusion,
    Input,
    LayerNorm,
    Logistic,
    MaxPool,
    Multiply,
    Pad,
    Parameter,
    ReduceSum,
    Relu,
    Reshape,
    Slice,
    Softmax,
    Tanh,
    Transpose,
)
from graphc.passes.fuse import fuse
from graphc.reference import interpret

N = Dim.symbol("N")


class Draft(GraphBuilder):
    """A builder with the shorthands of these tests."""

    def __init__(self) -> None:
        super().__init__("test", {"N": Bounds()})

    def input(self, *shape, label="x") -> Value:
        return self(Input(label, DType.F32, shape))

    def parameter(self, path, *shape) -> Value:
        return self(Parameter(path, DType.F32, shape, "normal()"))

    def conv(self, x, path, out, kernel=1) -> Value:
        weight = self.parameter(path, out, self.type_of(x).shape[-1], kernel, kernel)
        return self(ConvGeneral.simple(2, channels_last=True), x, weight)

    def bias(self, x, path) -> Value:
        shape = self.type_of(x).shape
        b = self.parameter(path, shape[-1])
        return self(Add(), x, self(BroadcastInDim(shape, (len(shape) - 1,)), b))


def kernels(graph: Graph) -> list[str]:
    """Each fusion as its kind and the names of the ops in it."""
    return [
        f"{n.op.kind}: " + " ".join(m.op.name for m in n.op.body.nodes if m.op.name != "input")
        for n in graph.nodes
        if isinstance(n.op, Fusion)
    ]


def check_same(graph: Graph, fused: Graph, **shapes) -> None:
    rng = np.random.default_rng(0)
    inputs = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    parameters = {
        n.op.path: rng.standard_normal(n.op.shape).astype(np.float32) for n in graph.parameters
    }
    expected = interpret(graph, inputs, parameters)
    found = interpret(fused, inputs, parameters)
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def fused(b: Draft, *outputs: Value, **shapes) -> list[str]:
    graph = b.build([(f"y{i}", v) for i, v in enumerate(outputs)])
    result = fuse(graph)
    verify(result)
    check_same(graph, result, **shapes)
    return kernels(result)


def test_bias_residual_and_activation_join_the_convolution():
    b = Draft()
    x = b.input(N, 6, 6, 4)
    y = b(Relu(), b(Add(), b.bias(b.conv(x, "w", 4), "b"), x))
    assert fused(b, y, x=(2, 6, 6, 4)) == [
        "conv_general: conv_general broadcast_in_dim add add relu"
    ]


def test_of_two_convolutions_that_are_added_the_later_takes_the_sum():
    b = Draft()
    x = b.input(N, 6, 6, 4)
    y = b(Relu(), b(Add(), b.conv(x, "w1", 8), b.conv(x, "w2", 8)))
    assert fused(b, y, x=(2, 6, 6, 4)) == [
        "conv_general: conv_general",
        "conv_general: conv_general add relu",
    ]


def test_a_gate_that_reads_the_convolution_twice_joins_it():
    b = Draft()
    y = b.conv(b.input(N, 6, 6, 4), "w", 8)
    assert fused(b, b(Multiply(), y, b(Logistic(), y)), x=(2, 6, 6, 4)) == [
        "conv_general: conv_general logistic multiply"
    ]


def test_stores_go_through_one_final_pad_or_transpose():
    b = Draft()
    y = b(Tanh(), b.conv(b.input(N, 6, 6, 4), "w", 8))
    y = b(Pad((0, 1, 1, 0), (0, 1, 1, 0), (0, 0, 0, 0)), y)
    z = b(Transpose((0, 3, 1, 2)), b.conv(y, "v", 4, kernel=3))
    assert fused(b, z, x=(2, 6, 6, 4)) == [
        "conv_general: conv_general tanh pad",
        "conv_general: conv_general transpose",
    ]


def test_a_contraction_takes_an_epilogue_only_and_a_reduction_a_prologue():
    b = Draft()
    x = b(Exp(), b.input(N, 8))
    y = b(DotGeneral((), (), (1,), (1,)), x, b.parameter("w", 4, 8))
    s = b(ReduceSum((1,)), b(Exp(), b(Tanh(), y)))
    assert fused(b, s, x=(3, 8)) == [
        "map: exp",
        "dot_general: dot_general tanh exp",
        "reduce_sum: reduce_sum",
    ]
    b = Draft()
    s = b(ReduceSum((1,)), b(Exp(), b.input(N, 8)))
    assert fused(b, s, x=(3, 8)) == ["reduce_sum: exp reduce_sum"]


def test_row_composites_take_what_is_before_and_after():
    b = Draft()
    x, r = b.input(N, 8), b.input(N, 8, label="r")
    w, c = b.parameter("w", 8), b.parameter("c", 8)
    y = b(Relu(), b(LayerNorm(1, 1e-5), b(Add(), x, r), w, c))
    assert fused(b, y, x=(3, 8), r=(3, 8)) == ["layer_norm: add layer_norm relu"]


def test_a_window_reads_many_times_and_takes_no_prologue():
    b = Draft()
    x = b(Exp(), b.input(N, 6, 6, 4))
    y = b(Relu(), b(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), True), x))
    assert fused(b, y, x=(2, 6, 6, 4)) == ["map: exp", "max_pool: max_pool relu"]


def test_reshapes_are_aliases_and_belong_to_no_kernel():
    b = Draft()
    x = b(Exp(), b.input(N, 6))
    y = b(Tanh(), b(Reshape((N, 2, 3)), x))
    assert fused(b, y, x=(4, 6)) == ["map: exp", "map: tanh"]


def test_a_value_with_two_readers_is_computed_once():
    b = Draft()
    x = b(Exp(), b.input(N, 6))
    s = b(Softmax(1), x)
    t = b(ReduceSum((1,)), x)
    assert fused(b, s, t, x=(4, 6)) == [
        "map: exp",
        "softmax: softmax",
        "reduce_sum: reduce_sum",
    ]


def test_broadcasts_are_repeated_in_each_reader():
    b = Draft()
    x = b.input(N, 6)
    s = b(BroadcastInDim((N, 6), (0,)), b(ReduceSum((1,)), x))
    p, q = b(Add(), x, s), b(Multiply(), x, s)
    assert fused(b, p, q, x=(4, 6)) == [
        "reduce_sum: reduce_sum",
        "map: broadcast_in_dim add",
        "map: broadcast_in_dim multiply",
    ]


def test_an_expensive_value_is_not_recomputed_at_shifted_indices():
    b = Draft()
    x = b(Exp(), b.input(N, 6))
    left, right = (b(Slice((0, i), (N, i + 5), (1, 1)), x) for i in (0, 1))
    kinds = fused(b, b(Add(), left, right), x=(4, 6))
    assert kinds[0] == "map: exp"


def test_parameter_expressions_stay_outside():
    b = Draft()
    w = b(Exp(), b.parameter("w", 4, 8))
    y = b(DotGeneral((), (), (1,), (1,)), b.input(N, 8), w)
    assert fused(b, y, x=(3, 8)) == ["dot_general: dot_general"]


@pytest.mark.parametrize("what", ["input", "twice", "parameter"])
def test_every_output_is_written_by_a_kernel_of_its_own(what):
    b = Draft()
    x = b.input(N, 6)
    y = b(Tanh(), x)
    if what == "input":
        assert fused(b, y, x, x=(4, 6)) == ["map: tanh", "map: "]
    elif what == "twice":
        assert fused(b, y, y, x=(4, 6)) == ["map: tanh", "map: "]
    else:
        assert fused(b, y, b.parameter("w", 3), x=(4, 6)) == ["map: tanh", "map: "]
