"""How cotangents go back through a convolution, written as convolutions.

Dumoulin & Visin 2016; see `conv.ConvGeneral.gradient`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphc.ir.dim import Shape, floordiv
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import arith, sliding
from graphc.ops.shape import Reverse, Transpose

if TYPE_CHECKING:
    from graphc.ops.conv import ConvGeneral


def data_gradient(
    b: GraphBuilder, op: ConvGeneral, shape: Shape, weight: Value, cotangent: Value
) -> Value:
    """The cotangent of x, of `shape`: the flipped weight over the cotangent, channels of each group exchanged.

    Strides and dilations of x change places (Dumoulin & Visin 2016).
    """
    kernel = b.type_of(weight).shape[2:]
    axes = sliding.spatial_axes(len(shape), op.channels_last)
    turned = exchanged_channels(b, weight, op.groups)
    padding = sliding.padding_back(
        op.name,
        op.spread(tuple(shape[a] for a in axes)),
        kernel,
        op.strides,
        op.padding,
        op.rhs_dilation,
    )
    back = replace(op, strides=op.lhs_dilation, lhs_dilation=op.strides, padding=padding)
    return sliding.trimmed(b, b(back, cotangent, turned), shape)


def exchanged_channels(b: GraphBuilder, weight: Value, groups: int) -> Value:
    """[I, O/g, *kernel] as the flipped [O, I/g, *kernel]."""
    inputs, outputs, *kernel = b.type_of(weight).shape
    taps = tuple(range(2, 2 + len(kernel)))
    flipped = b(Reverse(taps), weight) if any(k != 1 for k in kernel) else weight
    split = arith.reshape(b, flipped, (groups, floordiv(inputs, groups), outputs, *kernel))
    swapped = b(Transpose((0, 2, 1, *(t + 1 for t in taps))), split)
    return arith.reshape(b, swapped, (outputs * groups, floordiv(inputs, groups), *kernel))


def exchanged_padding(
    b: GraphBuilder, op: ConvGeneral, x: Value, weight: Shape, cotangent: Value
) -> sliding.Padding | None:
    """The padding of the cotangent as the operand of a convolution with as many results as x has elements.

    Its strides are the `lhs_dilation` of `op`, and its weight the one of `op` with channels exchanged. None where
    there is no such convolution, or named dims decide.
    """
    if set(op.strides) != {1} or not all(isinstance(k, int) for k in weight[2:]):
        return None
    axes = sliding.spatial_axes(len(weight), op.channels_last)
    sizes, given = b.type_of(x).shape, b.type_of(cotangent).shape
    padding = []
    for axis, k, hole, d, (low, _) in zip(
        axes, weight[2:], op.lhs_dilation, op.rhs_dilation, op.padding, strict=True
    ):
        reach = (k - 1) * d + 1
        before = reach - 1 - low
        after = (sizes[axis] - 1) * hole + reach - given[axis] - before
        if not (isinstance(before, int) and isinstance(after, int)):
            return None
        padding.append((before, after))
    return tuple(padding)


def batch_as_channels(
    b: GraphBuilder, op: ConvGeneral, x: Value, weight: Shape, cotangent: Value
) -> Value:
    """The cotangent as the weight over x, with batch and channels exchanged: for every attribute."""
    if op.channels_last:
        rank = b.type_of(x).rank
        first = (0, rank - 1, *range(1, rank - 1))
        x, cotangent = b(Transpose(first), x), b(Transpose(first), cotangent)
    n, channels, *spatial = b.type_of(x).shape
    g, rest = op.groups, tuple(range(2, len(weight)))
    grouped = arith.reshape(b, x, (n, g, floordiv(channels, g), *spatial))
    turned = b(Transpose((2, 1, 0, *(a + 1 for a in rest))), grouped)
    source = arith.reshape(b, turned, (floordiv(channels, g), n * g, *spatial))
    taps = b(Transpose((1, 0, *rest)), cotangent)
    padding = []
    for axis, size in enumerate(op.spread(tuple(spatial))):
        reach = (weight[2 + axis] - 1) * op.rhs_dilation[axis] + 1
        low, high = op.padding[axis]
        left = sliding.left_over(size, reach, op.strides[axis], (low, high))
        padding.append((low, high - (left or 0)))
    over = replace(
        op,
        strides=op.rhs_dilation,
        padding=tuple(padding),
        rhs_dilation=op.strides,
        channels_last=False,
    )
    found = sliding.trimmed(b, b(over, source, taps), (weight[1], weight[0], *weight[2:]))
    return b(Transpose((1, 0, *rest)), found)
