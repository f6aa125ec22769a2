"""Graphs as the frontend makes them, built by hand: what pictures and tables are tested on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Scope, Value
from graphc.ops import (
    Add,
    AvgPool,
    BroadcastInDim,
    ConvGeneral,
    DotGeneral,
    Input,
    Parameter,
    Relu,
    Reshape,
    Tanh,
)
from graphc.source import Source

LAYERS = ("Conv2d", "Linear", "Tanh", "ReLU", "AvgPool2d", "Flatten")
N = Dim.symbol("N")
SOURCE = Source("net.nn", "".join(f"line {i}\n" for i in range(1, 100)))


def is_layer(kind: str) -> bool:
    """The layers these models use."""
    return kind in LAYERS


class Net:
    """A builder that speaks layers."""

    def __init__(self, name: str, **dims: Bounds) -> None:
        self.b = GraphBuilder(name, dims or {"N": Bounds()})
        self.scope: tuple[Scope, ...] = ()
        self.line = 0

    @contextmanager
    def block(self, label: str, kind: str) -> Iterator[None]:
        """Everything inside belongs to one use of a block."""
        outer, self.line = self.scope, self.line + 1
        span = SOURCE.span(
            SOURCE.line_start(self.line % 90 + 1), SOURCE.line_start(self.line % 90 + 1) + 4
        )
        self.scope = (*outer, Scope(label, kind, span))
        with self.b.at(self.scope, span):
            yield
        self.scope = outer

    def input(self, name: str, *shape: int | Dim, dtype: DType = DType.F32) -> Value:
        """A model input."""
        return self.b(Input(name, dtype, shape))

    def parameter(self, name: str, *shape: int) -> Value:
        """A weight of the current layer."""
        path = ".".join([*(s.label for s in self.scope), name])
        return self.b(Parameter(path, DType.F32, shape, "zeros()"))

    def conv(
        self, x: Value, label: str, out: int, k: int, *, stride: int = 1, padding: int = 0
    ) -> Value:
        """Conv2d with bias."""
        channels = self.b.type_of(x).shape[1]
        assert isinstance(channels, int)
        with self.block(label, "Conv2d"):
            w, bias = self.parameter("weight", out, channels, k, k), self.parameter("bias", out)
            pad = ((padding, padding),) * 2
            y = self.b(ConvGeneral((stride, stride), pad, (1, 1), (1, 1)), x, w)
            return self.b(Add(), y, self.b(BroadcastInDim(self.b.type_of(y).shape, (1,)), bias))

    def linear(self, x: Value, label: str, out: int) -> Value:
        """Linear with bias."""
        features = self.b.type_of(x).shape[-1]
        assert isinstance(features, int)
        with self.block(label, "Linear"):
            w, bias = self.parameter("weight", out, features), self.parameter("bias", out)
            y = self.b(DotGeneral((), (), (1,), (1,)), x, w)
            return self.b(Add(), y, self.b(BroadcastInDim(self.b.type_of(y).shape, (1,)), bias))

    def relu(self, x: Value, label: str) -> Value:
        """ReLU layer."""
        with self.block(label, "ReLU"):
            return self.b(Relu(), x)


def lenet() -> Graph:
    """LeNet-5."""
    net = Net("LeNet")
    x = net.input("image", N, 1, 28, 28)
    for i, (out, padding) in enumerate([(6, 2), (16, 0)], 1):
        x = net.conv(x, f"conv{i}", out, 5, padding=padding)
        with net.block(f"tanh{i}", "Tanh"):
            x = net.b(Tanh(), x)
        with net.block(f"avgpool2d{i}", "AvgPool2d"):
            x = net.b(AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), x)
    with net.block("flatten", "Flatten"):
        x = net.b(Reshape((N, 400)), x)
    for i, out in enumerate([120, 84, 10], 1):
        x = net.linear(x, f"fc{i}", out)
        if i < 3:
            with net.block(f"tanh{i + 2}", "Tanh"):
                x = net.b(Tanh(), x)
    return net.b.build([("logits", x)])


def resnet(stages: tuple[int, ...] = (2, 4)) -> Graph:
    """A small residual net: stages of blocks, labelled `layer1.0`, `layer1.1`, ..."""
    net = Net("ResNet")
    x = net.conv(net.input("image", N, 3, 32, 32), "stem", 16, 3, padding=1)
    for i, count in enumerate(stages):
        for j in range(count):
            with net.block(f"layer{i + 1}.{j}", "Basic"):
                stride, width = (2 if i and not j else 1), 16 << i
                y = net.relu(net.conv(x, "conv1", width, 3, stride=stride, padding=1), "relu")
                y = net.conv(y, "conv2", width, 3, padding=1)
                skip = x if stride == 1 else net.conv(x, "downsample", width, 1, stride=stride)
                x = net.b(Relu(), net.b(Add(), y, skip))
    with net.block("flatten", "Flatten"):
        shape = net.b.type_of(x).shape
        x = net.b(Reshape((N, shape[1] * shape[2] * shape[3])), x)
    return net.b.build([("logits", net.linear(x, "fc", 10))])
