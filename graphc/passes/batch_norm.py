"""Scales and shifts per channel move into the weights of what computes the channel.

Inference batch normalisation is `x * scale + shift` with numbers known at build time. Behind a
convolution or a product with a weight, also one with a bias, `scale` goes into the weight:

    (conv(x, w) + b) * scale + shift == conv(x, w * scale) + (b * scale + shift)

so that nothing but a bias is left at run time (Jacob et al. 2018, section 3.2). Elsewhere it becomes
a multiplication and an addition. New weights are expressions of parameters: they are computed when
a module is built. A plain multiplication by numbers known at build time is folded alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, emit_like, rewrite
from graphc.ops import (
    Add,
    BatchNorm,
    BroadcastInDim,
    ConvGeneral,
    DotGeneral,
    Multiply,
    Reshape,
)
from graphc.ops.arith import add, convert, multiply, subtract
from graphc.ops.composite import in_working_precision
from graphc.ops.unary import Rsqrt
from graphc.passes.static import Static


def fold_batch_norm(graph: Graph) -> Graph:
    """The graph without batch normalisations, folded into weights where possible."""
    while True:
        new = rewrite(graph, _Folder().rule)
        if new is graph:
            return graph
        graph = new


class _Folder:
    """One walk over a graph."""

    def __init__(self) -> None:
        self.static = Static()

    def rule(self, r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
        if isinstance(node.op, BatchNorm):
            return self._batch_norm(r, node, node.op, operands)
        if isinstance(node.op, Multiply):
            return self._scale(r, node, operands)
        return None

    def _batch_norm(
        self, r: Rewriter, node: Node, op: BatchNorm, operands: tuple[Value, ...]
    ) -> Value:
        source = _source(r, self.static, node.operands[0], op.axis)
        if source is None or not all(self.static(r, v) for v in operands[1:]):
            (result,) = op.decompose(r, *operands)
            return result
        _, mean, var, *affine = in_working_precision(r, *operands)
        scale = r(Rsqrt(), add(r, var, op.eps))
        if affine:
            scale = multiply(r, scale, affine[0])
        shift = multiply(r, mean, scale)
        shift = subtract(r, affine[1] if len(affine) > 1 else 0.0, shift)
        if source.bias is not None:
            shift = add(r, multiply(r, _wide(r, source.bias), scale), shift)
        return _biased(r, node, source.scaled(r, scale), shift, op.axis)

    def _scale(self, r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
        for slot in (0, 1):
            if self.static(r, operands[slot]) or not r.type_of(operands[slot]).dtype.is_float:
                continue
            for axis in range(node.types[0].rank):
                scale = _vector(r, self.static, operands[1 - slot], axis)
                if scale is None:
                    continue
                source = _source(r, self.static, node.operands[slot], axis)
                if source is None:
                    continue
                scaled = source.scaled(r, _wide(r, scale))
                if source.bias is None:
                    return scaled
                shift = multiply(r, _wide(r, source.bias), _wide(r, scale))
                return _biased(r, node, scaled, shift, axis)
        return None


@dataclass(frozen=True)
class _Source:
    """What computes a channel: applied to a scale it emits itself anew; `bias` was added to it."""

    scaled: Callable[[Rewriter, Value], Value]
    bias: Value | None = None


def _source(r: Rewriter, static: Static, old: Value, axis: int) -> _Source | None:
    """The contraction with weights known at build time that makes channel `axis` of an old value."""
    node = r.old.node(old.node)
    if r.users_left(old) != 1:
        return None
    operands = tuple(r.map[v] for v in node.operands)
    if isinstance(node.op, Add):
        for slot in (0, 1):
            bias = _vector(r, static, operands[1 - slot], axis)
            if bias is None:
                continue
            inner = _source(r, static, node.operands[slot], axis)
            if inner is not None and inner.bias is None:
                return _Source(inner.scaled, bias)
        return None
    slot_axis = _weight(r, node, axis)
    if slot_axis is None or not static(r, operands[slot_axis[0]]):
        return None
    slot, weight_axis = slot_axis

    def scaled(r: Rewriter, scale: Value) -> Value:
        weight = operands[slot]
        shape = r.type_of(weight).shape
        wide = multiply(r, _wide(r, weight), r(BroadcastInDim(shape, (weight_axis,)), scale))
        given = list(operands)
        given[slot] = convert(r, wide, r.type_of(weight).dtype)
        (result,) = emit_like(r, node, node.op, *given)
        return result

    return _Source(scaled)


def _weight(r: Rewriter, node: Node, axis: int) -> tuple[int, int] | None:
    """The operand whose dimension makes result axis `axis`, and that dimension."""
    op = node.op
    if isinstance(op, ConvGeneral):
        channel = node.types[0].rank - 1 if op.channels_last else 1
        return (1, 0) if axis == channel else None
    if isinstance(op, DotGeneral):
        ranks = [r.old.type_of(v).rank for v in node.operands]
        results = [(0, d) for d in (*op.lhs_batch, *op.lhs_free(ranks[0]))]
        results += [(1, d) for d in op.rhs_free(ranks[1])]
        return results[axis] if axis >= len(op.lhs_batch) else None
    return None


def _vector(r: Rewriter, static: Static, value: Value, axis: int) -> Value | None:
    """A build-time value that varies along `axis` only, as a vector of that axis."""
    node = r.node_of(value)
    if not isinstance(node.op, BroadcastInDim):
        return None
    (inner,) = node.operands
    if not static(r, inner):
        return None
    size = node.op.shape[axis]
    shape = r.type_of(inner).shape
    if not isinstance(size, int) or any(
        d != 1 and to != axis for d, to in zip(shape, node.op.dims, strict=True)
    ):
        return None
    if all(d == 1 for d in shape):
        scalar = r(Reshape(()), inner) if shape else inner
        return r(BroadcastInDim((size,), ()), scalar)
    return r(Reshape((size,)), inner) if len(shape) != 1 else inner


def _wide(r: Rewriter, value: Value) -> Value:
    (wide,) = in_working_precision(r, value)
    return wide


def _biased(r: Rewriter, node: Node, x: Value, bias: Value, axis: int) -> Value:
    """x plus a vector along `axis`, in the node's element type."""
    narrow = convert(r, bias, node.types[0].dtype)
    return r(Add(), x, r(BroadcastInDim(node.types[0].shape, (axis,)), narrow))
