"""Transposed convolutions without multiplying by the zeros between their input's elements.

A transposed convolution is a convolution of an input with holes (`lhs_dilation`). Where its windows do not overlap
(kernel = stride, as in a U-Net's upsampling) each input pixel makes a patch of its own: one matrix product
[N * pixels, C] @ [C, patch * O], and the patches laid out side by side. With strides of 1 the holes stay, for a kernel
that steps over them; only padding by whole elements becomes a `pad`. Otherwise the holes become data: a `pad` with
interior zeros, and a plain convolution of it.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import ConvGeneral, DotGeneral, Pad, Reshape, Reverse, Transpose


def fill_holes(graph: Graph) -> Graph:
    """The graph with `lhs_dilation` only where strides are 1 and padding is less than an element."""

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
        op = node.op
        if not isinstance(op, ConvGeneral) or not op.channels_last or set(op.lhs_dilation) == {1}:
            return None
        return _patches(r, op, operands) or _stepped(r, op, operands)

    return rewrite(graph, rule)


def _patches(r: Rewriter, op: ConvGeneral, operands: tuple[Value, ...]) -> Value | None:
    """The product form, where windows tile the result exactly."""
    x, w = operands
    data, weight = r.type_of(x), r.type_of(w)
    kernel = weight.shape[2:]
    rank = len(kernel)
    tiling = all(
        k == s and pair == (s - 1, s - 1)
        for k, s, pair in zip(kernel, op.lhs_dilation, op.padding, strict=True)
    )
    if not tiling or op.groups != 1 or set(op.strides) | set(op.rhs_dilation) != {1}:
        return None
    # The convolution meets its kernel back to front: patch position a takes tap k - 1 - a.
    flipped = r(Reverse(tuple(range(2, 2 + rank))), w)
    matrix = r(Transpose((1, *range(2, 2 + rank), 0)), flipped)
    y = r(DotGeneral((), (), (1 + rank,), (0,)), x, matrix)  # [N, *pixels, *patch, O]
    order = [0, *(d for i in range(rank) for d in (1 + i, 1 + rank + i)), 1 + 2 * rank]
    batch, *pixels, _ = data.shape
    size = [p * k for p, k in zip(pixels, kernel, strict=True)]
    side_by_side = r(Transpose(tuple(order)), y) if rank > 1 else y
    return r(Reshape((batch, *size, weight.shape[0])), side_by_side)


def _stepped(r: Rewriter, op: ConvGeneral, operands: tuple[Value, ...]) -> Value | None:
    """The form with holes that a kernel steps over; None where the node has it already."""
    if set(op.strides) != {1}:
        return _holes(r, op, operands)
    x, w = operands
    whole = [
        (max(low, 0) // s, max(high, 0) // s)
        for (low, high), s in zip(op.padding, op.lhs_dilation, strict=True)
    ]
    if not any(n for pair in whole for n in pair):
        return None
    rest = tuple(
        (low - before * s, high - after * s)
        for (low, high), (before, after), s in zip(op.padding, whole, op.lhs_dilation, strict=True)
    )
    before, after = ((0, *(pair[side] for pair in whole), 0) for side in (0, 1))
    border = Pad(before, after, (0,) * len(before), 0.0)
    return r(replace(op, padding=rest), r(border, x), w)


def _holes(r: Rewriter, op: ConvGeneral, operands: tuple[Value, ...]) -> Value:
    """The padded form."""
    x, w = operands
    rank = len(op.strides)
    low, high = ((0, *(pair[side] for pair in op.padding), 0) for side in (0, 1))
    interior = (0, *(s - 1 for s in op.lhs_dilation), 0)
    plain = replace(op, lhs_dilation=(1,) * rank, padding=((0, 0),) * rank)
    return r(plain, r(Pad(low, high, interior, 0.0), x), w)
