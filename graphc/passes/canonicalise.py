"""One form for what can be written in several ways, so that later passes look for one form only.

- operands of commutative ops in one order: constants last, else by creation;
- a constant on the left of a comparison goes to the right;
- views that change nothing disappear, two views in a row become one; `stop_gradient` has done its work;
- a reduction over dimensions of size 1 is a reshape.

Every rule keeps results bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ir.types import TensorType
from graphc.ops import (
    BroadcastInDim,
    Compare,
    Concatenate,
    Convert,
    Pad,
    ReduceMax,
    ReduceMin,
    Reshape,
    Reverse,
    Slice,
    StopGradient,
    Transpose,
)
from graphc.passes.static import splat

_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


def canonicalise(graph: Graph) -> Graph:
    """The graph in canonical form."""
    return rewrite(graph, canonical)


def canonical(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
    """The rule of this pass: another form of a node, or None if it is canonical."""
    if node.op.commutative:
        return _order(r, node, operands)
    found = _RULES.get(type(node.op))
    return None if found is None else found(r, node.op, operands, node.types[0])


def _order(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
    def key(value: Value) -> tuple[bool, Value]:
        return (splat(r, value) is not None, value)

    a, b, *rest = operands
    return r(node.op, b, a, *rest) if key(b) < key(a) else None


def _compare(r: Rewriter, op: Compare, xs: Sequence[Value], result: TensorType) -> Value | None:
    a, b = xs
    if splat(r, a) is not None and splat(r, b) is None:
        return r(Compare(_MIRRORED[op.direction]), b, a)
    return None


def _convert(r: Rewriter, op: Convert, xs: Sequence[Value], result: TensorType) -> Value | None:
    return xs[0] if r.type_of(xs[0]).dtype is op.dtype else None


def _through(
    r: Rewriter, op: StopGradient, xs: Sequence[Value], result: TensorType
) -> Value | None:
    return xs[0]


def _reshape(r: Rewriter, op: Reshape, xs: Sequence[Value], result: TensorType) -> Value | None:
    (x,) = xs
    inner = r.node_of(x)
    if r.type_of(x).shape == op.shape:
        return x
    if isinstance(inner.op, Reshape):
        y = inner.operands[0]
        return y if r.type_of(y).shape == op.shape else r(op, y)
    if isinstance(inner.op, BroadcastInDim) and splat(r, x) is not None:
        scalar = inner.operands[0]
        if not r.type_of(scalar).shape:
            return r(BroadcastInDim(op.shape, ()), scalar)
    return None


def _transpose(r: Rewriter, op: Transpose, xs: Sequence[Value], result: TensorType) -> Value | None:
    (x,) = xs
    if op.permutation == tuple(range(len(op.permutation))):
        return x
    inner = r.node_of(x)
    if isinstance(inner.op, Transpose):
        both = tuple(inner.op.permutation[p] for p in op.permutation)
        if both == tuple(range(len(both))):
            return inner.operands[0]
        return r(Transpose(both), inner.operands[0])
    return None


def _broadcast(
    r: Rewriter, op: BroadcastInDim, xs: Sequence[Value], result: TensorType
) -> Value | None:
    (x,) = xs
    if r.type_of(x).shape == op.shape:
        return x
    inner = r.node_of(x)
    if isinstance(inner.op, BroadcastInDim):
        dims = tuple(op.dims[d] for d in inner.op.dims)
        return r(BroadcastInDim(op.shape, dims), inner.operands[0])
    return None


def _reverse(r: Rewriter, op: Reverse, xs: Sequence[Value], result: TensorType) -> Value | None:
    axes = tuple(sorted(a for a in op.axes if result.shape[a] != 1))
    if not axes:
        return xs[0]
    inner = r.node_of(xs[0])
    if isinstance(inner.op, Reverse):
        left = tuple(sorted(set(axes) ^ set(inner.op.axes)))
        return r(Reverse(left), inner.operands[0]) if left else inner.operands[0]
    return r(Reverse(axes), xs[0]) if axes != op.axes else None


def _slice(r: Rewriter, op: Slice, xs: Sequence[Value], result: TensorType) -> Value | None:
    (x,) = xs
    if r.type_of(x).shape == result.shape:
        return x
    inner = r.node_of(x)
    if not isinstance(inner.op, Slice):
        return None
    rows = list(zip(inner.op.start, inner.op.strides, op.start, op.limit, op.strides, strict=True))
    start = tuple(a + lo * s for a, s, lo, _, _ in rows)
    # The last element that may be taken is number hi - 1 of the inner slice; limit is one past it.
    limit = tuple(a + (lo if hi == lo else hi - 1) * s + (hi != lo) for a, s, lo, hi, _ in rows)
    strides = tuple(s * t for _, s, _, _, t in rows)
    whole = r(Slice(start, limit, strides), inner.operands[0])
    return whole if r.type_of(whole) == result else None


def _pad(r: Rewriter, op: Pad, xs: Sequence[Value], result: TensorType) -> Value | None:
    changes = (*op.low, *op.high, *op.interior)
    return None if any(changes) else xs[0]


def _concatenate(
    r: Rewriter, op: Concatenate, xs: Sequence[Value], result: TensorType
) -> Value | None:
    parts: list[Value] = []
    for x in xs:
        inner = r.node_of(x)
        same = isinstance(inner.op, Concatenate) and inner.op.axis == op.axis
        parts += inner.operands if same else (x,)
    kept = [x for x in parts if r.type_of(x).shape[op.axis] != 0] or parts[:1]
    if len(kept) == 1:
        return kept[0]
    return r(op, *kept) if kept != list(xs) else None


def _extreme(r: Rewriter, op: Any, xs: Sequence[Value], result: TensorType) -> Value | None:
    shape = r.type_of(xs[0]).shape
    ones = {a for a in op.axes if shape[a] == 1}
    if len(ones) == len(op.axes):
        return r(Reshape(result.shape), xs[0]) if op.axes else xs[0]
    axes = tuple(sorted(op.axes))
    return r(replace(op, axes=axes), xs[0]) if axes != op.axes else None


_Rule = Callable[[Rewriter, Any, Sequence[Value], TensorType], "Value | None"]
_RULES: dict[type[Any], _Rule] = {
    Compare: _compare,
    Convert: _convert,
    StopGradient: _through,
    Reshape: _reshape,
    Transpose: _transpose,
    BroadcastInDim: _broadcast,
    Reverse: _reverse,
    Slice: _slice,
    Pad: _pad,
    Concatenate: _concatenate,
    ReduceMax: _extreme,
    ReduceMin: _extreme,
}
