"""Functions that build graphs the way NumPy computes: `F.add(b, x, 1)`, `F.mean(b, x, -1)`, `F.matmul(b, x, y)`.

The first argument is the builder. An operand is a `Value` or a Python number, which takes the other operand's element
type; shapes broadcast; axes may count from the end. Element types never change silently. Wrong shapes raise OpError
naming both. The lower half, which decompositions use as well, is `arith.py`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence

from graphc.ir.dim import DimLike, Shape, floordiv, product
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Op, OpError
from graphc.ops import activation, binary, index, norm, reduce, shape, unary
from graphc.ops.arith import (
    Axes,
    Operand,
    Scalar,
    add,
    as_spread,
    axes_of,
    axis_of,
    binary_op,
    broadcast_shapes,
    broadcast_to,
    compare,
    constant,
    convert,
    dim_scalar,
    divide,
    max,
    maximum,
    mean,
    minimum,
    multiply,
    reduce_op,
    reshape,
    select,
    subtract,
    sum,
    together,
)
from graphc.ops.dot import DotGeneral
from graphc.ops.einsum import einsum
from graphc.ops.errors import show
from graphc.ops.source import Iota

Unary = Callable[[GraphBuilder, Value], Value]
Binary = Callable[[GraphBuilder, Operand, Operand], Value]


def _unary(op: Op) -> Unary:
    def function(b: GraphBuilder, x: Value) -> Value:
        return b(op, x)

    function.__name__, function.__doc__ = op.name, type(op).__doc__
    return function


def _binary(op: Op) -> Binary:
    def function(b: GraphBuilder, x: Operand, y: Operand) -> Value:
        return binary_op(b, op, x, y)

    function.__name__, function.__doc__ = op.name, type(op).__doc__
    return function


negative = _unary(unary.Negate())
abs = _unary(unary.Abs())
sign = _unary(unary.Sign())
exp = _unary(unary.Exp())
expm1 = _unary(unary.Expm1())
log = _unary(unary.Log())
log1p = _unary(unary.Log1p())
sqrt = _unary(unary.Sqrt())
rsqrt = _unary(unary.Rsqrt())
tanh = _unary(unary.Tanh())
sigmoid = _unary(unary.Logistic())
erf = _unary(unary.Erf())
sin = _unary(unary.Sine())
cos = _unary(unary.Cosine())
floor = _unary(unary.Floor())
ceil = _unary(unary.Ceil())
round = _unary(unary.RoundNearestEven())
isnan = _unary(unary.IsNan())
logical_not = _unary(unary.Not())
relu = _unary(activation.Relu())
selu = _unary(activation.Selu())
silu = _unary(activation.Silu())
mish = _unary(activation.Mish())
hardswish = _unary(activation.Hardswish())
hardsigmoid = _unary(activation.Hardsigmoid())

floor_divide = _binary(binary.FloorDivide())
remainder = _binary(binary.Remainder())
logical_and = _binary(binary.And())
logical_or = _binary(binary.Or())
logical_xor = _binary(binary.Xor())


def power(b: GraphBuilder, x: Operand, y: Operand) -> Value:
    """x ** y. A small whole exponent multiplies (exact, and the only form for integers), 0.5 is sqrt."""
    if isinstance(x, Value) and isinstance(y, (int, float)) and not isinstance(y, bool):
        dtype = b.type_of(x).dtype
        if y == 0.5 and dtype.is_float:
            return b(unary.Sqrt(), x)
        if 1 <= y <= 16 and y == int(y) and (dtype.is_float or dtype.is_int):
            return _repeated(b, x, int(y))
    return binary_op(b, binary.Power(), x, y)


def _repeated(b: GraphBuilder, x: Value, n: int) -> Value:
    """x ** n for n >= 1 by squaring."""
    if n == 1:
        return x
    half = _repeated(b, x, n // 2)
    square = multiply(b, half, half)
    return multiply(b, square, x) if n % 2 else square


def clamp(
    b: GraphBuilder, x: Value, low: Operand | None = None, high: Operand | None = None
) -> Value:
    """x limited to [low, high]; either may be None. NaN stays NaN."""
    x = x if low is None else maximum(b, x, low)
    return x if high is None else minimum(b, x, high)


def log_sigmoid(b: GraphBuilder, x: Value) -> Value:
    """log(1 / (1 + exp(-x))) as min(x, 0) - log1p(exp(-|x|)), which never overflows."""
    tail = log1p(b, exp(b, negative(b, abs(b, x))))
    return subtract(b, minimum(b, x, 0.0), tail)


def prod(b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The product over axes (all by default)."""
    return reduce_op(b, reduce.ReduceProd, x, axes, keepdims)


def min(b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The minimum over axes (all by default)."""
    return reduce_op(b, reduce.ReduceMin, x, axes, keepdims)


def any(b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """Whether any bool along axes (all by default) is true."""
    return reduce_op(b, reduce.ReduceAny, x, axes, keepdims)


def all(b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """Whether all bools along axes (all by default) are true."""
    return reduce_op(b, reduce.ReduceAll, x, axes, keepdims)


def var(
    b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False, correction: int = 0
) -> Value:
    """The variance over axes in two passes, divided by count - correction (torch.var's default is 1, NumPy's 0)."""
    type = b.type_of(x)
    which = axes_of(axes, type.shape, "var")
    centred = subtract(b, x, mean(b, x, which, keepdims=True))
    total = sum(b, multiply(b, centred, centred), which, keepdims)
    count = product(type.shape[a] for a in which) - correction
    return divide(b, total, dim_scalar(b, count, type.dtype))


def argmax(b: GraphBuilder, x: Value, axis: int | None = None, keepdims: bool = False) -> Value:
    """i64 position of the maximum along an axis (of the flattened x by default)."""
    return _arg(b, reduce.ArgMax, x, axis, keepdims)


def argmin(b: GraphBuilder, x: Value, axis: int | None = None, keepdims: bool = False) -> Value:
    """i64 position of the minimum along an axis (of the flattened x by default)."""
    return _arg(b, reduce.ArgMin, x, axis, keepdims)


def _arg(
    b: GraphBuilder, kind: type[reduce.ArgReduce], x: Value, axis: int | None, keepdims: bool
) -> Value:
    type = b.type_of(x)
    if axis is None:
        out = b(kind(0), reshape(b, x, (type.size,)))
        return reshape(b, out, [1] * type.rank) if keepdims else out
    which = axis_of(axis, type.shape, kind.name)
    out = b(kind(which), x)
    return unsqueeze(b, out, which) if keepdims else out


def full(b: GraphBuilder, shape: Sequence[DimLike], value: Scalar, dtype: DType) -> Value:
    """A tensor of one value."""
    return broadcast_to(b, constant(b, value, dtype), tuple(shape))


def arange(b: GraphBuilder, stop: DimLike, dtype: DType = DType.I64) -> Value:
    """0, 1, ... stop - 1."""
    return b(Iota(dtype, (stop,), 0))


def permute(b: GraphBuilder, x: Value, dims: Sequence[int]) -> Value:
    """Dimensions reordered (torch.permute); x itself for the identity. Raises OpError E0211."""
    rank = b.type_of(x).rank
    which = tuple(d + rank if -rank <= d < 0 else d for d in dims)
    return x if which == tuple(range(rank)) else b(shape.Transpose(which), x)


def swapaxes(b: GraphBuilder, x: Value, first: int, second: int) -> Value:
    """Two dimensions exchanged (torch.transpose)."""
    sizes = b.type_of(x).shape
    i, j = axis_of(first, sizes, "transpose"), axis_of(second, sizes, "transpose")
    order = list(range(len(sizes)))
    order[i], order[j] = j, i
    return permute(b, x, order)


def unsqueeze(b: GraphBuilder, x: Value, axis: int) -> Value:
    """A new dimension of 1 at `axis`."""
    sizes = b.type_of(x).shape
    at = axis_of(axis, (*sizes, 1), "unsqueeze")
    return reshape(b, x, (*sizes[:at], 1, *sizes[at:]))


def squeeze(b: GraphBuilder, x: Value, axes: Axes = None) -> Value:
    """Without the named dimensions, which must be 1, or without all of 1. Raises OpError E0207 or E0211."""
    sizes = b.type_of(x).shape
    if axes is None:
        return reshape(b, x, [d for d in sizes if d != 1])
    which = axes_of(axes, sizes, "squeeze")
    for a in which:
        if sizes[a] != 1:
            raise OpError(
                f"squeeze: axis {a} of {show(sizes)} is {sizes[a]}, not 1", operand=0, code="E0207"
            )
    return reshape(b, x, [d for a, d in enumerate(sizes) if a not in which])


def flatten(b: GraphBuilder, x: Value, start: int = 1, end: int = -1) -> Value:
    """Dimensions start to end (inclusive) as one (torch.flatten with nn.Flatten's defaults)."""
    sizes = b.type_of(x).shape
    if not sizes:
        return reshape(b, x, (1,))
    first, last = axis_of(start, sizes, "flatten"), axis_of(end, sizes, "flatten")
    if first > last:
        raise OpError(f"flatten: axis {start} comes after {end} in {show(sizes)}", code="E0211")
    return reshape(b, x, (*sizes[:first], product(sizes[first : last + 1]), *sizes[last + 1 :]))


def slice_axis(
    b: GraphBuilder, x: Value, axis: int, start: DimLike, stop: DimLike, step: int = 1
) -> Value:
    """x[start:stop:step] along one axis; start and stop count from the front. Raises OpError E0213."""
    sizes = b.type_of(x).shape
    which = axis_of(axis, sizes, "slice")
    low, high, steps = [0 for _ in sizes], list(sizes), [1 for _ in sizes]
    lows: list[DimLike] = list(low)
    lows[which], high[which], steps[which] = start, stop, step
    op = shape.Slice(tuple(lows), tuple(high), tuple(steps))
    return x if (start, stop, step) == (0, sizes[which], 1) else b(op, x)


def concat(b: GraphBuilder, parts: Sequence[Value], axis: int = 0) -> Value:
    """Parts one after the other along an axis. Raises OpError E0201, E0205, E0206, E0211 or E0212."""
    if not parts:
        raise OpError("concat needs at least one tensor")
    which = axis_of(axis, b.type_of(parts[0]).shape, "concat")
    return parts[0] if len(parts) == 1 else b(shape.Concatenate(which), *parts)


def stack(b: GraphBuilder, parts: Sequence[Value], axis: int = 0) -> Value:
    """Parts along a new axis. Raises OpError as `concat`."""
    if not parts:
        raise OpError("stack needs at least one tensor")
    which = axis_of(axis, (*b.type_of(parts[0]).shape, 1), "stack")
    for slot, part in enumerate(parts):
        if b.type_of(part).rank != b.type_of(parts[0]).rank:
            first, other = b.type_of(parts[0]), b.type_of(part)
            raise OpError(
                f"stack got {first} and {other}: numbers of dimensions differ",
                operand=slot,
                code="E0205",
            )
    return concat(b, [unsqueeze(b, part, which) for part in parts], which)


def split(
    b: GraphBuilder, x: Value, sizes: DimLike | Sequence[DimLike], axis: int = 0
) -> list[Value]:
    """Parts of the given sizes along an axis (torch.split): one size for equal parts, the last may be smaller.

    Raises OpError E0207 when the sizes do not add up, or the number of parts is not known.
    """
    shape_of = b.type_of(x).shape
    which = axis_of(axis, shape_of, "split")
    total = shape_of[which]
    if not isinstance(sizes, Sequence):
        sizes = _equal_parts(shape_of, total, sizes)
    added: DimLike = 0
    for size in sizes:
        added = added + size
    if added != total:
        raise OpError(
            f"split: sizes {show(sizes)} add up to {added}, but axis {which} of {show(shape_of)} "
            f"has {total}",
            operand=0,
            code="E0207",
        )
    parts: list[Value] = []
    start: DimLike = 0
    for size in sizes:
        parts.append(slice_axis(b, x, which, start, start + size))
        start = start + size
    return parts


def _equal_parts(shape_of: Shape, total: DimLike, size: DimLike) -> list[DimLike]:
    """The sizes of `split` for one size."""
    if size == 0 or (isinstance(size, int) and size < 0):
        raise OpError(f"split: a part cannot have {size} elements", code="E0207")
    count = floordiv(total, size)
    rest = total - count * size
    if not isinstance(count, int) or not (rest == 0 or isinstance(rest, int)):
        raise OpError(
            f"split: the number of parts of {size} in {show(shape_of)} is not known", code="E0207"
        )
    return [size] * count + ([rest] if rest != 0 else [])


def chunk(b: GraphBuilder, x: Value, chunks: int, axis: int = 0) -> list[Value]:
    """At most `chunks` parts, all of one size but the last (torch.chunk)."""
    shape_of = b.type_of(x).shape
    if chunks < 1:
        raise OpError(f"chunk: chunks must be at least 1 and is {chunks}", code="E0207")
    total = shape_of[axis_of(axis, shape_of, "chunk")]
    return split(b, x, floordiv(total + (chunks - 1), chunks), axis)


def pad(b: GraphBuilder, x: Value, padding: Sequence[tuple[int, int]], value: Scalar = 0) -> Value:
    """x with (low, high) elements of `value` per dimension; negative ones crop."""
    low, high = tuple(p[0] for p in padding), tuple(p[1] for p in padding)
    if not builtins.any(low) and not builtins.any(high):
        return x
    dtype = b.type_of(x).dtype
    fill: Scalar = float(value) if dtype.is_float else int(value) if dtype.is_int else bool(value)
    return b(shape.Pad(low, high, (0,) * len(low), fill), x)


def flip(b: GraphBuilder, x: Value, axes: Axes = None) -> Value:
    """Elements along axes (all by default) backwards."""
    return b(shape.Reverse(axes_of(axes, b.type_of(x).shape, "flip")), x)


def take(b: GraphBuilder, x: Value, indices: Value, axis: int = 0) -> Value:
    """Positions along an axis (numpy.take); an index out of range, also a negative one, is a fault."""
    return b(index.Take(axis_of(axis, b.type_of(x).shape, "take")), x, indices)


def gather(b: GraphBuilder, x: Value, axis: int, indices: Value) -> Value:
    """One element per index along an axis (numpy.take_along_axis; torch.gather for equal other dimensions)."""
    return b(index.TakeAlongAxis(axis_of(axis, b.type_of(x).shape, "gather")), x, indices)


def argsort(b: GraphBuilder, x: Value, axis: int = -1, descending: bool = False) -> Value:
    """i64 positions that sort x, stable."""
    return b(index.ArgSort(axis_of(axis, b.type_of(x).shape, "argsort"), descending), x)


def sort(b: GraphBuilder, x: Value, axis: int = -1, descending: bool = False) -> Value:
    """x sorted along an axis, NaN counting as the largest."""
    return gather(b, x, axis, argsort(b, x, axis, descending))


def softmax(b: GraphBuilder, x: Value, axis: int = -1) -> Value:
    """exp(x) / sum(exp(x)) along an axis."""
    return b(norm.Softmax(axis_of(axis, b.type_of(x).shape, "softmax")), x)


def log_softmax(b: GraphBuilder, x: Value, axis: int = -1) -> Value:
    """x - log(sum(exp(x))) along an axis."""
    return b(norm.LogSoftmax(axis_of(axis, b.type_of(x).shape, "log_softmax")), x)


def matmul(b: GraphBuilder, x: Value, y: Value) -> Value:
    """NumPy's matmul: vectors are rows or columns, leading dimensions broadcast.

    Raises OpError E0203 for inner sizes that differ, E0202 for batches that do not broadcast, E0205 for scalars.
    """
    left, right = b.type_of(x), b.type_of(y)
    for slot, type in enumerate((left, right)):
        if not type.rank:
            raise OpError(
                f"matmul of {left} and {right}: a scalar has no rows; use *",
                operand=slot,
                code="E0205",
            )
    inner = right.shape[0 if right.rank == 1 else -2]
    if left.shape[-1] != inner:
        raise OpError(
            f"matmul of {left} and {right}: the last dimension of the first ({left.shape[-1]}) "
            f"is not the {'only' if right.rank == 1 else 'second to last'} one of the second "
            f"({inner})",
            operand=1,
            code="E0203",
            help=_matmul_help(left.shape, right.shape),
        )
    if left.rank == 1 or right.rank <= 2:  # no batch on one side: nothing to broadcast
        axis = 0 if right.rank == 1 else right.rank - 2
        return b(DotGeneral((), (), (left.rank - 1,), (axis,)), x, y)
    if right.rank > 2 and left.rank == 2:
        out = b(DotGeneral((), (), (1,), (right.rank - 2,)), x, y)  # [m, *batch, n]
        rank = right.rank
        return permute(b, out, (*range(1, rank - 1), 0, rank - 1))
    batch = broadcast_shapes(left.shape[:-2], right.shape[:-2], what="matmul: batches")
    x = broadcast_to(b, x, (*batch, *left.shape[-2:]))
    y = broadcast_to(b, y, (*batch, *right.shape[-2:]))
    return b(DotGeneral.matrix(len(batch)), x, y)


def _matmul_help(left: Shape, right: Shape) -> str | None:
    if len(right) >= 2 and left[-1] == right[-1]:
        return f"transposing the second, {show((*right[:-2], right[-1], right[-2]))}, would fit"
    if len(left) >= 2 and len(right) >= 2 and left[-2] == right[-2]:
        return f"transposing the first, {show((*left[:-2], left[-1], left[-2]))}, would fit"
    return None


def linear(b: GraphBuilder, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x @ weight.T + bias with PyTorch's weight [out, in]; x has any leading dimensions."""
    out = b(DotGeneral((), (), (b.type_of(x).rank - 1,), (1,)), x, weight)
    return out if bias is None else add(b, out, bias)


__all__ = [
    "Axes",
    "Operand",
    "Scalar",
    "abs",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "as_spread",
    "axes_of",
    "axis_of",
    "binary_op",
    "broadcast_shapes",
    "broadcast_to",
    "ceil",
    "chunk",
    "clamp",
    "compare",
    "concat",
    "constant",
    "convert",
    "cos",
    "dim_scalar",
    "divide",
    "einsum",
    "erf",
    "exp",
    "expm1",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "full",
    "gather",
    "hardsigmoid",
    "hardswish",
    "isnan",
    "linear",
    "log",
    "log1p",
    "log_sigmoid",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mish",
    "multiply",
    "negative",
    "pad",
    "permute",
    "power",
    "prod",
    "reduce_op",
    "relu",
    "remainder",
    "reshape",
    "round",
    "rsqrt",
    "select",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "slice_axis",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "subtract",
    "sum",
    "swapaxes",
    "take",
    "tanh",
    "together",
    "unsqueeze",
    "var",
]
