"""Convolutions by warp groups against the interpreter: strides, padding, dilation, pixels that are rows."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.lowering.cuda.hopper.tiles import Cut
from graphc.ops import Convert, ConvGeneral, Parameter, Relu
from graphc.ops import functional as f
from tests.lowering.cuda.hopper.networks import Compiled, N, Network, compiled

CUTS = {48: Cut(128, 64), 64: Cut(128, 128, 2), 40: Cut(64, 64)}


def convolution(
    n: Network,
    name: str,
    x: Sequence[DimLike],
    features: int,
    kernel: tuple[int, ...],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> None:
    """A case: bf16, channels last, with a bias and ReLU in f32 behind it."""
    rank, channels = len(kernel), x[-1]
    assert isinstance(channels, int)
    w = n.b(Parameter(f"w_{name}", DType.BF16, (features, channels, *kernel), "zeros()"))
    bias = n.b(Parameter(f"b_{name}", DType.F32, (features,), "zeros()"))
    around = ((padding, padding),) * rank
    op = ConvGeneral((stride,) * rank, around, (1,) * rank, (dilation,) * rank, 1, True)
    y = n.b(Convert(DType.F32), n.b(op, n.input(f"x_{name}", DType.BF16, x), w))
    n.outputs.append((name, n.b(Relu(), f.add(n.b, y, bias))))


@functools.cache
def network() -> Compiled:
    n = Network(open=True)
    convolution(n, "three_by_three", (2, 9, 11, 64), 48, (3, 3), padding=1)
    convolution(n, "pointwise", (2, 9, 7, 64), 64, (1, 1))
    convolution(n, "pointwise_stride", (2, 19, 17, 72), 64, (1, 1), stride=2)
    convolution(n, "dilated", (1, 14, 14, 8), 40, (3, 3), padding=1, dilation=2)
    convolution(n, "signal", (3, 60, 16), 37, (5,), stride=2, padding=2)
    convolution(n, "open", (N, 8, 8, 16), 64, (3, 3), padding=1)
    return compiled(n, CUTS)


def test_every_convolution_is_for_warp_groups() -> None:
    texts = [t for t in network().kernels if "conv_general(" in t]
    assert len(texts) == 6 and all("graphc_empty<" in t for t in texts)
    assert sum("graphc_fill<" in t for t in texts) == 1  # the pointwise one without strides
    assert sum("graphc_gather<" in t for t in texts) == 5


@pytest.mark.parametrize("reverse", [False, True])
def test_convolutions_are_what_the_interpreter_computes(reverse: bool) -> None:
    network().check(3, 8e-3, reverse)
