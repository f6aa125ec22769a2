"""Algebra: an expression is replaced by a cheaper one with the same results.

Floats follow IEEE 754 to the bit: `x + 0` stays (it turns -0 into +0) while `x - 0` and `x * 1` go,
`x - x` and `x * 0` stay (NaN, infinity). Two rules round differently, both towards the exact result:
`x ** 2` and `x ** 3` are multiplications, for which `pow` is within an ulp or two anyway. Integers
wrap around, so there the usual identities hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Op, Pattern
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ir.types import TensorType
from graphc.ops import (
    Abs,
    Add,
    And,
    BroadcastInDim,
    Ceil,
    Compare,
    Concatenate,
    Constant,
    Convert,
    ConvGeneral,
    Divide,
    Floor,
    Maximum,
    Minimum,
    Multiply,
    Negate,
    Not,
    Or,
    Pad,
    Power,
    Relu,
    RoundNearestEven,
    Select,
    Slice,
    Subtract,
    Xor,
)
from graphc.passes.static import Number, splat

_INVERSE_DIRECTION = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}


def simplify(graph: Graph) -> Graph:
    """The graph with algebraic identities applied, once over every node."""
    return rewrite(graph, simpler)


def simpler(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
    """The rule of this pass: a cheaper expression with the same results, or None."""
    found = _RULES.get(type(node.op))
    if found is not None:
        result = found(r, node.op, operands, node.types[0])
        if result is not None:
            return result
    if node.op.pattern is Pattern.ELEMENTWISE and len(node.types) == 1:
        return _before_broadcast(r, node.op, operands, node.types[0])
    return None


def filled(b: GraphBuilder, number: Number, type: TensorType) -> Value:
    """A tensor of one repeated number."""
    scalar = b(Constant.of(np.asarray(number, type.dtype.numpy)))
    return b(BroadcastInDim(type.shape, ()), scalar) if type.shape else scalar


def _before_broadcast(r: Rewriter, op: Op, xs: Sequence[Value], result: TensorType) -> Value | None:
    """Elementwise ops on values that are all broadcast alike come before the broadcast."""
    pattern: BroadcastInDim | None = None
    small: TensorType | None = None
    for x in xs:
        node = r.node_of(x)
        if not isinstance(node.op, BroadcastInDim):
            return None
        inner = r.type_of(node.operands[0])
        if splat(r, x) is not None and not inner.shape:
            continue
        if pattern is not None and (
            node.op != pattern or small is None or inner.shape != small.shape
        ):
            return None
        pattern, small = node.op, inner
    if pattern is None or small is None:
        return None  # all are scalars: constant folding's
    before = []
    for x in xs:
        (inner_value,) = r.node_of(x).operands
        if r.type_of(inner_value).shape != small.shape:
            inner_value = r(BroadcastInDim(small.shape, ()), inner_value)
        before.append(inner_value)
    return r(pattern, r(op, *before))


def _is(op_class: type[Op], r: Rewriter, value: Value) -> Value | None:
    """The operand of a unary op of a class, if the value is one."""
    node = r.node_of(value)
    return node.operands[0] if isinstance(node.op, op_class) else None


def _add(r: Rewriter, op: Add, xs: Sequence[Value], t: TensorType) -> Value | None:
    for x, y in (xs, xs[::-1]):
        c = splat(r, y)
        if c is not None and c == 0 and (t.dtype.is_int or math.copysign(1, c) < 0):
            return x
        negated = _is(Negate, r, y)
        if negated is not None:
            return r(Subtract(), x, negated)
    return None


def _subtract(r: Rewriter, op: Subtract, xs: Sequence[Value], t: TensorType) -> Value | None:
    x, y = xs
    c = splat(r, y)
    if c is not None and c == 0 and (t.dtype.is_int or math.copysign(1, c) > 0):
        return x
    if x == y and t.dtype.is_int:
        return filled(r, 0, t)
    negated = _is(Negate, r, y)
    return None if negated is None else r(Add(), x, negated)


def _multiply(r: Rewriter, op: Multiply, xs: Sequence[Value], t: TensorType) -> Value | None:
    for x, y in (xs, xs[::-1]):
        c = splat(r, y)
        if c == 1:
            return x
        if c == -1:
            return r(Negate(), x)
        if c == 0 and t.dtype.is_int:
            return filled(r, 0, t)
    a, b = (_is(Negate, r, x) for x in xs)
    return r(op, a, b) if a is not None and b is not None else None


def _divide(r: Rewriter, op: Divide, xs: Sequence[Value], t: TensorType) -> Value | None:
    x, y = xs
    c = splat(r, y)
    if c is None or c == 0 or math.isinf(c) or math.isnan(c):
        return None
    if c == 1:
        return x
    if c == -1:
        return r(Negate(), x)
    # 1/c is exact for powers of two; then x * (1/c) rounds the same number as x / c.
    small = float(np.finfo(np.float32).tiny) if t.dtype is not DType.F16 else 2.0**-14
    if abs(math.frexp(c)[0]) == 0.5 and small <= abs(1 / c) <= 2.0**15:
        return r(Multiply(), x, filled(r, 1 / c, t))
    return None


def _power(r: Rewriter, op: Power, xs: Sequence[Value], t: TensorType) -> Value | None:
    x, y = xs
    c = splat(r, y)
    if c == 1:
        return x
    if c == 0:
        return filled(r, 1, t)
    if c == 2 or (c == 3 and t.dtype in (DType.F32, DType.F64)):
        square = r(Multiply(), x, x)
        return square if c == 2 else r(Multiply(), square, x)
    return None


def _negate(r: Rewriter, op: Negate, xs: Sequence[Value], t: TensorType) -> Value | None:
    return _is(Negate, r, xs[0])


def _not(r: Rewriter, op: Not, xs: Sequence[Value], t: TensorType) -> Value | None:
    inner = r.node_of(xs[0])
    if isinstance(inner.op, Not):
        return inner.operands[0]
    if isinstance(inner.op, Compare) and not r.type_of(inner.operands[0]).dtype.is_float:
        return r(Compare(_INVERSE_DIRECTION[inner.op.direction]), *inner.operands)
    if isinstance(inner.op, Compare) and inner.op.direction in ("eq", "ne"):
        return r(Compare(_INVERSE_DIRECTION[inner.op.direction]), *inner.operands)
    return None


def _abs(r: Rewriter, op: Abs, xs: Sequence[Value], t: TensorType) -> Value | None:
    negated = _is(Negate, r, xs[0])
    if negated is not None:
        return r(op, negated)
    return xs[0] if _is(Abs, r, xs[0]) is not None else None


def _idempotent(r: Rewriter, op: Op, xs: Sequence[Value], t: TensorType) -> Value | None:
    return xs[0] if r.node_of(xs[0]).op == op else None


def _rounding(r: Rewriter, op: Op, xs: Sequence[Value], t: TensorType) -> Value | None:
    whole = any(_is(c, r, xs[0]) is not None for c in (Floor, Ceil, RoundNearestEven))
    return xs[0] if whole else None


def _either(r: Rewriter, op: Op, xs: Sequence[Value], t: TensorType) -> Value | None:
    """And, or, maximum and minimum of a value with itself are the value."""
    return xs[0] if xs[0] == xs[1] else None


def _logical(r: Rewriter, op: Op, xs: Sequence[Value], t: TensorType) -> Value | None:
    a, b = xs
    if a == b:
        return filled(r, 0, t) if isinstance(op, Xor) else a
    if t.dtype is not DType.BOOL:
        return None
    for x, y in ((a, b), (b, a)):
        c = splat(r, y)
        if c is None:
            continue
        if isinstance(op, Xor):
            return r(Not(), x) if c else x
        absorbs = bool(c) == isinstance(op, Or)
        return y if absorbs else x
    return None


def _select(r: Rewriter, op: Select, xs: Sequence[Value], t: TensorType) -> Value | None:
    condition, a, b = xs
    if a == b:
        return a
    c = splat(r, condition)
    if c is not None:
        return a if c else b
    inner = _is(Not, r, condition)
    return None if inner is None else r(op, inner, b, a)


def _compare(r: Rewriter, op: Compare, xs: Sequence[Value], t: TensorType) -> Value | None:
    if xs[0] == xs[1] and not r.type_of(xs[0]).dtype.is_float:
        return filled(r, op.direction in ("eq", "le", "ge"), t)
    return None


def lossless(source: DType, target: DType) -> bool:
    """True when every value of `source` is a value of `target`."""
    if source is target or source is DType.BOOL:
        return True
    if target is DType.BOOL or (source.is_float and not target.is_float):
        return False
    if source.is_float:
        wider = {DType.F16: "f32 f64", DType.BF16: "f32 f64", DType.F32: "f64", DType.F64: ""}
        return target.value in wider[source].split()
    info = _integer(source)
    if target.is_int:
        into = _integer(target)
        return bool(into.min <= info.min and info.max <= into.max)
    mantissa = {DType.F64: 53, DType.F32: 24, DType.F16: 11, DType.BF16: 8}[target]
    return info.bits - (info.min < 0) <= mantissa


def _integer(dtype: DType) -> np.iinfo[Any]:
    return np.iinfo(str(dtype.numpy))


def _convert(r: Rewriter, op: Convert, xs: Sequence[Value], t: TensorType) -> Value | None:
    inner = r.node_of(xs[0])
    if not isinstance(inner.op, Convert):
        return None
    source, middle = r.type_of(inner.operands[0]).dtype, inner.op.dtype
    if not lossless(source, middle):
        return None
    if source is op.dtype:
        return inner.operands[0]
    # Floats out of range become integers in another way than wrapping integers do.
    wraps = middle.is_float and op.dtype.is_int and not lossless(source, op.dtype)
    return None if wraps and not source.is_float else r(op, inner.operands[0])


def _concatenate(r: Rewriter, op: Concatenate, xs: Sequence[Value], t: TensorType) -> Value | None:
    """Adjacent slices of one value are one slice."""
    parts: list[Value] = []
    for x in xs:
        joined = _adjacent(r, op.axis, parts[-1], x) if parts else None
        if joined is None:
            parts.append(x)
        else:
            parts[-1] = joined
    if len(parts) == len(xs):
        return None
    return parts[0] if len(parts) == 1 else r(op, *parts)


def _adjacent(r: Rewriter, axis: int, left: Value, right: Value) -> Value | None:
    a, b = r.node_of(left), r.node_of(right)
    if not isinstance(a.op, Slice) or not isinstance(b.op, Slice) or a.operands != b.operands:
        return None
    if a.op.limit[axis] != b.op.start[axis] or a.op.strides[axis] != 1 or b.op.strides[axis] != 1:
        return None
    for i in range(len(a.op.start)):
        same = all(
            getattr(a.op, f)[i] == getattr(b.op, f)[i] for f in ("start", "limit", "strides")
        )
        if i != axis and not same:
            return None
    limit = tuple(b.op.limit[i] if i == axis else d for i, d in enumerate(a.op.limit))
    return r(Slice(a.op.start, limit, a.op.strides), a.operands[0])


def _conv(r: Rewriter, op: ConvGeneral, xs: Sequence[Value], t: TensorType) -> Value | None:
    """Explicit zero padding before a convolution becomes its own padding."""
    pad = r.node_of(xs[0])
    if not isinstance(pad.op, Pad) or pad.op.value != 0 or any(d != 1 for d in op.lhs_dilation):
        return None
    rank = r.type_of(xs[0]).rank
    axes = range(1, rank - 1) if op.channels_last else range(2, rank)
    others = [a for a in range(rank) if a not in axes]
    if any(pad.op.interior) or any(pad.op.low[a] or pad.op.high[a] for a in others):
        return None
    explicit = [(pad.op.low[a], pad.op.high[a]) for a in axes]
    # Cropping on one side does not add up with padding on the other.
    if any(n < 0 for pair in (*explicit, *op.padding) for n in pair):
        return None
    padding = tuple((a + lo, b + hi) for (a, b), (lo, hi) in zip(explicit, op.padding, strict=True))
    new = ConvGeneral(
        op.strides, padding, op.lhs_dilation, op.rhs_dilation, op.groups, op.channels_last
    )
    return r(new, pad.operands[0], xs[1])


_Rule = Callable[[Rewriter, Any, Sequence[Value], TensorType], "Value | None"]
_RULES: dict[type[Any], _Rule] = {
    Add: _add,
    Subtract: _subtract,
    Multiply: _multiply,
    Divide: _divide,
    Power: _power,
    Negate: _negate,
    Not: _not,
    Abs: _abs,
    Relu: _idempotent,
    Floor: _rounding,
    Ceil: _rounding,
    RoundNearestEven: _rounding,
    Maximum: _either,
    Minimum: _either,
    And: _logical,
    Or: _logical,
    Xor: _logical,
    Select: _select,
    Compare: _compare,
    Convert: _convert,
    Concatenate: _concatenate,
    ConvGeneral: _conv,
}
