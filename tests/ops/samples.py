"""Random applications of every op: what the property tests of ops, passes and kernels are drawn from.

`SAMPLES[name](rng)` gives an op and concrete operands that fit it. Shapes are small, sizes 0 and 1 are drawn on
purpose, floats include NaN, infinities and ties where the op defines them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from graphc import ops as o
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.op import Array, Op
from graphc.ops import functional
from graphc.ops.elementwise import Elementwise
from graphc.ops.reduce import ArgReduce, Reduce
from graphc.ops.window import Window

Rng = np.random.Generator
Sample = tuple[Op, list[Array]]

FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)
INTS = (DType.I64, DType.I32, DType.I16, DType.I8, DType.U8)


def dtype_of(rng: Rng, kind: str) -> DType:
    choices = {
        "float": (DType.F32, DType.F32, *FLOATS),
        "number": (DType.F32, DType.F32, *FLOATS, *INTS),
        "int": INTS,
        "logical": (DType.BOOL, *INTS),
        "bool": (DType.BOOL,),
        "any": (DType.F32, *FLOATS, *INTS, DType.BOOL),
    }[kind]
    return choices[rng.integers(len(choices))]


def shape_of(rng: Rng, low: int = 0, high: int = 4, smallest: int = 1) -> tuple[int, ...]:
    if smallest and rng.random() < 0.1:
        smallest = 0
    return tuple(int(n) for n in rng.integers(smallest, 5, rng.integers(low, high + 1)))


def array(rng: Rng, dtype: DType, shape: tuple[int, ...], special: bool = False) -> Array:
    """Normal floats on a coarse grid (so that there are ties); `special` mixes in NaN, infinities and zeros."""
    if dtype is DType.BOOL:
        return rng.random(shape) < 0.5
    if dtype.is_int:
        low = 0 if dtype is DType.U8 else -9
        return rng.integers(low, 10, shape).astype(dtype.numpy)
    x = np.round(rng.normal(size=shape) * 3 * 8) / 8
    if special:
        odd = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-5, -30.0, 30.0], size=shape)
        x = np.where(rng.random(shape) < 0.2, odd, x)
    return np.asarray(x).astype(dtype.numpy)


def _int(rng: Rng, low: int, high: int) -> int:
    """An integer from low to high, both included."""
    return int(rng.integers(low, high + 1))


def _axis(rng: Rng, shape: tuple[int, ...]) -> int:
    return _int(rng, 0, len(shape) - 1)


def _permutation(rng: Rng, rank: int) -> tuple[int, ...]:
    return tuple(int(p) for p in rng.permutation(rank))


def _attributes(rng: Rng, cls: type[Op]) -> dict[str, object]:
    """Attributes of an elementwise op."""
    known: dict[str, object] = {
        "direction": str(rng.choice(["eq", "ne", "lt", "le", "gt", "ge"])),
        "approximate": str(rng.choice(["none", "tanh"])),
        "negative_slope": 0.1,
        "alpha": 1.5,
        "beta": 2.0,
        "threshold": 8.0,
        "min_val": -0.5,
        "max_val": 1.5,
    }
    return {f.name: known[f.name] for f in fields(cls) if f.name in known}


def _elementwise(cls: type[Elementwise]) -> Callable[[Rng], Sample]:
    def sample(rng: Rng) -> Sample:
        dtype, shape = dtype_of(rng, cls.kind), shape_of(rng)
        arrays = [array(rng, dtype, shape, special=True) for _ in range(cls.arity or 1)]
        return cls(**_attributes(rng, cls)), arrays

    return sample


def _convert(rng: Rng) -> Sample:
    op = o.Convert(dtype_of(rng, "any"))
    source = dtype_of(rng, "any")
    special = source.is_float and (op.dtype.is_float or op.dtype is DType.BOOL)
    x = array(rng, source, shape_of(rng), special)
    return op, [np.abs(x) if op.dtype is DType.U8 and source is not DType.BOOL else x]


def _select(rng: Rng) -> Sample:
    dtype, shape = dtype_of(rng, "any"), shape_of(rng)
    return o.Select(), [array(rng, d, shape, True) for d in (DType.BOOL, dtype, dtype)]


def _reduce(cls: type[Reduce]) -> Callable[[Rng], Sample]:
    def sample(rng: Rng) -> Sample:
        shape = shape_of(rng)
        axes = tuple(sorted(_permutation(rng, len(shape))[: _int(rng, 0, len(shape))]))
        special = cls.function in ("max", "min")
        return cls(axes), [array(rng, dtype_of(rng, cls.kind), shape, special)]

    return sample


def _arg_reduce(cls: type[ArgReduce]) -> Callable[[Rng], Sample]:
    def sample(rng: Rng) -> Sample:
        shape = tuple(max(n, 1) for n in shape_of(rng, 1))
        return cls(_axis(rng, shape)), [array(rng, dtype_of(rng, "number"), shape, True)]

    return sample


def _iota(rng: Rng) -> Sample:
    shape = shape_of(rng, 1)
    return o.Iota(dtype_of(rng, "number"), shape, _axis(rng, shape)), []


def _broadcast(rng: Rng) -> Sample:
    shape = shape_of(rng)
    dims = tuple(sorted(_permutation(rng, len(shape))[: _int(rng, 0, len(shape))]))
    inner = tuple(1 if rng.random() < 0.3 else shape[d] for d in dims)
    return o.BroadcastInDim(shape, dims), [array(rng, dtype_of(rng, "any"), inner)]


def _reshape(rng: Rng) -> Sample:
    factors = [int(f) for f in rng.choice([1, 2, 3], _int(rng, 0, 4))]

    def grouped() -> tuple[int, ...]:
        cuts = sorted(_int(rng, 0, len(factors)) for _ in range(_int(rng, 0, 3)))
        parts = np.split(np.array(factors, int), cuts) if factors else [np.ones(0, int)]
        return tuple(math.prod(int(f) for f in part) for part in parts)

    return o.Reshape(grouped()), [array(rng, dtype_of(rng, "any"), grouped())]


def _barrier(rng: Rng) -> Sample:
    return o.OptimizationBarrier(), [array(rng, dtype_of(rng, "any"), shape_of(rng))]


def _transpose(rng: Rng) -> Sample:
    shape = shape_of(rng)
    return o.Transpose(_permutation(rng, len(shape))), [array(rng, dtype_of(rng, "any"), shape)]


def _reverse(rng: Rng) -> Sample:
    shape = shape_of(rng)
    axes = tuple(sorted(_permutation(rng, len(shape))[: _int(rng, 0, len(shape))]))
    return o.Reverse(axes), [array(rng, dtype_of(rng, "any"), shape)]


def _slice(rng: Rng) -> Sample:
    shape = shape_of(rng)
    bounds = [sorted((_int(rng, 0, n), _int(rng, 0, n))) for n in shape]
    strides = tuple(_int(rng, 1, 3) for _ in shape)
    op = o.Slice(tuple(a for a, _ in bounds), tuple(z for _, z in bounds), strides)
    return op, [array(rng, dtype_of(rng, "any"), shape)]


def _pad(rng: Rng) -> Sample:
    shape = tuple(max(n, 1) for n in shape_of(rng))
    dtype = dtype_of(rng, "any")
    low, high, interior = [], [], []
    for n in shape:
        between = _int(rng, 0, 2)
        size = (n - 1) * (between + 1) + 1
        a = _int(rng, -size, 2)
        low.append(a)
        high.append(_int(rng, -min(size + a, size), 2))
        interior.append(between)
    value = array(rng, dtype, ()).item()
    return o.Pad(tuple(low), tuple(high), tuple(interior), value), [array(rng, dtype, shape)]


def _concatenate(rng: Rng) -> Sample:
    shape, dtype = shape_of(rng, 1), dtype_of(rng, "any")
    axis = _axis(rng, shape)
    parts = [
        array(rng, dtype, (*shape[:axis], _int(rng, 0, 3), *shape[axis + 1 :]))
        for _ in range(_int(rng, 1, 3))
    ]
    return o.Concatenate(axis), parts


def _positions(rng: Rng, shape: tuple[int, ...], size: int) -> Array:
    return rng.integers(0, size, shape).astype(dtype_of(rng, "int").numpy)


def _take(rng: Rng) -> Sample:
    shape = tuple(max(n, 1) for n in shape_of(rng, 1, 3))
    axis = _axis(rng, shape)
    at = _positions(rng, shape_of(rng, 0, 2), shape[axis])
    return o.Take(axis), [array(rng, dtype_of(rng, "any"), shape), at]


def _take_along(rng: Rng) -> Sample:
    shape = tuple(max(n, 1) for n in shape_of(rng, 1, 3))
    axis = _axis(rng, shape)
    at = _positions(rng, (*shape[:axis], _int(rng, 0, 4), *shape[axis + 1 :]), shape[axis])
    return o.TakeAlongAxis(axis), [array(rng, dtype_of(rng, "any"), shape), at]


def _box(rng: Rng) -> tuple[tuple[int, ...], tuple[int, ...], list[Array]]:
    shape = shape_of(rng, 0, 3)
    sizes = tuple(_int(rng, 0, n) for n in shape)
    kind = dtype_of(rng, "int").numpy
    starts = [np.asarray(_int(rng, 0, n - s), kind) for n, s in zip(shape, sizes, strict=True)]
    return shape, sizes, starts


def _dynamic_slice(rng: Rng) -> Sample:
    shape, sizes, starts = _box(rng)
    return o.DynamicSlice(sizes), [array(rng, dtype_of(rng, "any"), shape), *starts]


def _dynamic_update(rng: Rng) -> Sample:
    (shape, sizes, starts), dtype = _box(rng), dtype_of(rng, "any")
    x, update = array(rng, dtype, shape), array(rng, dtype, sizes)
    return o.DynamicUpdateSlice(), [x, update, *starts]


def _index_add(rng: Rng) -> Sample:
    shape, dtype = tuple(max(n, 1) for n in shape_of(rng, 1, 3)), dtype_of(rng, "number")
    axis = _axis(rng, shape)
    at = _positions(rng, (_int(rng, 0, 5),), shape[axis])
    updates = array(rng, dtype, (*shape[:axis], len(at), *shape[axis + 1 :]))
    return o.IndexAdd(axis), [array(rng, dtype, shape), at, updates]


def _arg_sort(rng: Rng) -> Sample:
    shape = shape_of(rng, 1)
    op = o.ArgSort(_axis(rng, shape), bool(rng.random() < 0.5))
    return op, [array(rng, dtype_of(rng, "number"), shape, special=True)]


def _dot(rng: Rng) -> Sample:
    sizes = [_int(rng, 1, 4) for _ in range(6)]
    batch, inner, m, n = (_int(rng, 0, k) for k in (2, 2, 1, 1))
    common = list(range(batch + inner))
    left = [*common, *range(4, 4 + m)]
    right = [*common, *range(5, 5 + n)]
    left = [left[p] for p in _permutation(rng, len(left))]
    right = [right[p] for p in _permutation(rng, len(right))]
    op = o.DotGeneral(
        tuple(left.index(a) for a in common[:batch]),
        tuple(right.index(a) for a in common[:batch]),
        tuple(left.index(a) for a in common[batch:]),
        tuple(right.index(a) for a in common[batch:]),
    )
    dtype = dtype_of(rng, "number")
    return op, [array(rng, dtype, tuple(sizes[a] for a in side)) for side in (left, right)]


def _pads(rng: Rng, reach: list[int], sizes: list[int]) -> tuple[tuple[int, int], ...]:
    """Paddings that leave room for windows of `reach`; some crop."""
    pairs = []
    for r, n in zip(reach, sizes, strict=True):
        low = _int(rng, -1, 2)
        pairs.append((low, max(_int(rng, -1, 2), r - n - low)))
    return tuple(pairs)


def _layout(
    rng: Rng, batch: int, channels: int, spatial: list[int]
) -> tuple[bool, tuple[int, ...]]:
    last = bool(rng.random() < 0.5)
    return last, (batch, *spatial, channels) if last else (batch, channels, *spatial)


def _conv(rng: Rng) -> Sample:
    rank, groups, dtype = _int(rng, 1, 2), _int(rng, 1, 3), dtype_of(rng, "number")
    spatial, kernel = ([_int(rng, 1, 4) for _ in range(rank)] for _ in range(2))
    lhs, rhs, strides = (tuple(_int(rng, 1, 2) for _ in range(rank)) for _ in range(3))
    spread = [(n - 1) * d + 1 for n, d in zip(spatial, lhs, strict=True)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, rhs, strict=True)]
    padding = _pads(rng, reach, spread)
    inner = _int(rng, 1, 2)
    last, shape = _layout(rng, _int(rng, 0, 2), groups * inner, spatial)
    weight = array(rng, dtype, (groups * _int(rng, 1, 2), inner, *kernel))
    op = o.ConvGeneral(strides, padding, lhs, rhs, groups, last)
    return op, [array(rng, dtype, shape), weight]


def _conv_weight(rng: Rng) -> Sample:
    rank, groups, dtype = _int(rng, 1, 2), _int(rng, 1, 3), dtype_of(rng, "number")
    spatial, kernel = ([_int(rng, 1, 4) for _ in range(rank)] for _ in range(2))
    dilation, strides = (tuple(_int(rng, 1, 2) for _ in range(rank)) for _ in range(2))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding, batch = _pads(rng, reach, spatial), _int(rng, 0, 2)
    last, shape = _layout(rng, batch, groups * _int(rng, 1, 2), spatial)
    crop = tuple((_int(rng, 0, 1), _int(rng, 0, 1)) for _ in range(rank))
    sizes = zip(spatial, padding, reach, strides, crop, strict=True)
    out = [(n + sum(pad) - r) // s + 1 + sum(border) for n, pad, r, s, border in sizes]
    features = groups * _int(rng, 1, 2)
    given = (batch, *out, features) if last else (batch, features, *out)
    op = o.ConvWeightGradient(tuple(kernel), strides, padding, dilation, crop, groups, last)
    return op, [array(rng, dtype, shape), array(rng, dtype, given)]


def _window(cls: type[Window]) -> Callable[[Rng], Sample]:
    def sample(rng: Rng) -> Sample:
        rank = _int(rng, 1, 2)
        spatial = [_int(rng, 1, 5) for _ in range(rank)]
        window, strides, dilation = (tuple(_int(rng, 1, 3) for _ in range(rank)) for _ in range(3))
        reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
        padding = _pads(rng, reach, spatial)
        last, shape = _layout(rng, _int(rng, 1, 2), _int(rng, 1, 3), spatial)
        attributes: dict[str, object] = {}
        if cls is o.AvgPool:
            attributes["count_include_pad"] = bool(rng.random() < 0.5)
            attributes["divisor"] = _int(rng, 1, 5) if rng.random() < 0.3 else None
        op = cls(window, strides, padding, dilation, last, **attributes)
        x = array(rng, dtype_of(rng, cls.kind), shape, special=cls is o.MaxPool)
        return op, [x]

    return sample


def _max_pool_gradient(rng: Rng) -> Sample:
    op, (x,) = _window(o.MaxPool)(rng)
    assert isinstance(op, o.MaxPool)
    x = x if DType.from_numpy(x.dtype).is_float else x.astype(np.float32)
    (y,) = op.evaluate(x)
    back = o.MaxPoolGradient(op.window, op.strides, op.padding, op.dilation, op.channels_last)
    return back, [x, array(rng, DType.from_numpy(x.dtype), y.shape)]


def _some(rng: Rng, arrays: list[Array], required: int) -> list[Array]:
    """The operands, some optional ones left out."""
    return arrays[: _int(rng, required, len(arrays))]


def _softmax(cls: type[Op]) -> Callable[[Rng], Sample]:
    def sample(rng: Rng) -> Sample:
        shape = shape_of(rng, 1)
        x = array(rng, dtype_of(rng, "float"), shape) * np.asarray(4, np.float32)
        return cls(_axis(rng, shape)), [x.astype(np.float32)]

    return sample


def _cross_entropy(rng: Rng) -> Sample:
    shape = tuple(max(n, 1) for n in shape_of(rng, 1))
    op = o.CrossEntropy(0.1 if rng.random() < 0.5 else 0.0)
    x = array(rng, dtype_of(rng, "float"), shape)
    return op, [x, _positions(rng, shape[:-1], shape[-1])]


def _row_norm(cls: type[Op]) -> Callable[[Rng], Sample]:
    def sample(rng: Rng) -> Sample:
        shape, dtype = tuple(max(n, 1) for n in shape_of(rng, 1)), dtype_of(rng, "float")
        dims = _int(rng, 1, len(shape))
        vectors = [array(rng, dtype, shape[len(shape) - dims :]) for _ in "wb"]
        arrays = [array(rng, dtype, shape), *vectors[: 1 if cls is o.RmsNorm else 2]]
        return cls(dims, 0.01), _some(rng, arrays, 1)

    return sample


def _batch_norm(rng: Rng) -> Sample:
    shape, dtype = shape_of(rng, 1), dtype_of(rng, "float")
    axis = _axis(rng, shape)
    vectors = [array(rng, dtype, (shape[axis],)) for _ in range(4)]
    vectors[1] = np.abs(vectors[1])
    return o.BatchNorm(axis, 0.01), _some(rng, [array(rng, dtype, shape), *vectors], 3)


def _variance(rng: Rng) -> Sample:
    shape = tuple(max(n, 1) for n in shape_of(rng, 1))
    axes = tuple(a for a in range(len(shape)) if rng.random() < 0.6)
    return o.Variance(axes), [array(rng, dtype_of(rng, "float"), shape)]


def _group_norm(rng: Rng) -> Sample:
    groups, dtype = _int(rng, 1, 3), dtype_of(rng, "float")
    channels = groups * _int(rng, 1, 3)
    spatial = [_int(rng, 1, 3) for _ in range(_int(rng, 0, 2))]
    last, shape = _layout(rng, _int(rng, 1, 2), channels, spatial)
    vectors = [array(rng, dtype, (channels,)) for _ in "wb"]
    return o.GroupNorm(groups, 0.01, last), _some(rng, [array(rng, dtype, shape), *vectors], 1)


def _attention(rng: Rng) -> Sample:
    b, h, t, s, d, e = (_int(rng, 1, 3) for _ in range(6))
    dtype = dtype_of(rng, "float")
    arrays = [array(rng, dtype, (b, h, *rest)) for rest in ((t, d), (s, d), (s, e))]
    if rng.random() < 0.6:
        shape = tuple(1 if rng.random() < 0.3 else n for n in (b, h, t, s))
        arrays.append(array(rng, DType.BOOL if rng.random() < 0.5 else dtype, shape))
    return o.Attention(0.5, bool(rng.random() < 0.5)), arrays


def _attention_gradient(rng: Rng) -> Sample:
    op, (q, k, v, *mask) = _attention(rng)
    assert isinstance(op, o.Attention)
    (y,) = op.evaluate(q, k, v, *mask)
    given = array(rng, DType.from_numpy(y.dtype), y.shape)
    return o.AttentionGradient(op.scale, op.causal), [q, k, v, y, given, *mask]


def _resize(rng: Rng) -> Sample:
    mode = str(rng.choice(["nearest", "bilinear"]))
    rank = 2 if mode == "bilinear" else _int(rng, 1, 2)
    spatial = [_int(rng, 1, 5) for _ in range(rank)]
    last, shape = _layout(rng, _int(rng, 1, 2), _int(rng, 1, 2), spatial)
    size = tuple(_int(rng, 1, 9) for _ in range(rank))
    op = o.Resize(size, mode, bool(rng.random() < 0.5) and mode == "bilinear", last)
    return op, [array(rng, dtype_of(rng, "float"), shape)]


def _fusion(rng: Rng) -> Sample:
    shape = shape_of(rng, 1)
    b = GraphBuilder("body")
    x, y = (b(o.Input(name, DType.F32, shape)) for name in "xy")
    z = b(o.Relu(), functional.add(b, x, functional.multiply(b, y, 2.0)))
    body = b.build([("z", z), ("s", functional.sum(b, z, 0))])
    return o.Fusion("map", body), [array(rng, DType.F32, shape) for _ in "xy"]


def _scan(rng: Rng) -> Sample:
    """Two sequences, two carries (one handed on by the other), captures; what depends on what is drawn."""
    steps, n, d = _int(rng, 0, 4), _int(rng, 1, 3), _int(rng, 1, 3)
    shapes = {"x": (n, d), "s": (), "h": (n, d), "c": (n, d), "w": (d, d), "g": (d,)}
    b = GraphBuilder("step")
    x, s, h, c, w, g = (b(o.Input(k, DType.F32, shape)) for k, shape in shapes.items())
    z = functional.add(b, functional.matmul(b, h, w), x if rng.random() < 0.8 else c)
    z = functional.multiply(b, z, g) if rng.random() < 0.5 else functional.add(b, z, g)
    after = b(o.Tanh(), z if rng.random() < 0.5 else functional.multiply(b, z, s))
    other = h if rng.random() < 0.5 else functional.add(b, c, functional.multiply(b, after, s))
    emitted = [("y", functional.multiply(b, after, c)), ("z", functional.sum(b, z, 0)), ("p", h)]
    emitted = [e for e in emitted if rng.random() < 0.6]
    body = b.build([("h", after), ("c", other), *emitted])
    operands = [(steps, n, d), (steps,), *list(shapes.values())[2:]]
    op = o.Scan(body, steps, 2, 2, reverse=bool(rng.random() < 0.5))
    return op, [array(rng, DType.F32, shape) for shape in operands]


def _cond(rng: Rng) -> Sample:
    """Two bodies over the same captures, which read some of them; a result that is a capture, one that is constant."""
    n, d = _int(rng, 0, 3), _int(rng, 1, 3)
    shapes = {"x": (n, d), "w": (d, d), "g": (d,), "s": ()}
    bodies = []
    for side in range(2):
        b = GraphBuilder(f"branch{side}")
        x, w, g, s = (b(o.Input(k, DType.F32, shape)) for k, shape in shapes.items())
        m = b(o.Input("m", DType.BOOL, (d,)))
        y = functional.matmul(b, x, w) if rng.random() < 0.6 else functional.multiply(b, x, s)
        y = b(o.Tanh(), functional.add(b, y, g)) if rng.random() < 0.7 else y
        v = [g, b(o.Sine(), g), functional.sum(b, y, 0), b(o.BroadcastInDim((d,), ()), s)]
        v.append(b(o.Select(), m, *v[1:3]))
        one = b(o.Constant.of(np.float32(1.5)))
        outputs = [("y", y), ("v", v[_int(rng, 0, 4)]), ("c", one if rng.random() < 0.5 else s)]
        bodies.append(b.build(outputs))
    arrays = [array(rng, DType.F32, shape) for shape in shapes.values()]
    predicate = np.asarray(rng.random() < 0.5)
    return o.Cond(*bodies), [predicate, *arrays, array(rng, DType.BOOL, (d,))]


def retyped(op: Op, dtype: DType) -> Op:
    """An op whose bodies compute in another element type; any op without bodies as it is."""
    changes: dict[str, object] = {}
    for field in fields(op):
        body = getattr(op, field.name)
        if isinstance(body, Graph):
            b = GraphBuilder(body.name, body.dims)
            new: dict[Value, Value] = {}
            for node in body.nodes:
                each = node.op
                if isinstance(each, o.Input) and each.dtype.is_float:
                    each = replace(each, dtype=dtype)
                if isinstance(each, o.Constant) and each.array.dtype.kind == "f":
                    each = o.Constant.of(each.array.astype(dtype.numpy))
                results = b.emit(each, *(new[v] for v in node.operands))
                new.update(zip(node.values, results, strict=True))
            changes[field.name] = b.build([(label, new[v]) for label, v in body.outputs])
    return replace(op, **changes) if changes else op


def _constant(rng: Rng) -> Sample:
    dtype, shape = dtype_of(rng, "any"), shape_of(rng)
    return o.Constant.of(np.full(shape, array(rng, dtype, ()).item(), dtype.numpy)), []


def _random_bits(rng: Rng) -> Sample:
    key = rng.integers(-(2**63), 2**63 - 1, 2)
    return o.RandomBits(_int(rng, 0, 2**32 - 1), shape_of(rng)), [key]


SAMPLES: dict[str, Callable[[Rng], Sample]] = {
    **{c.name: _elementwise(c) for c in o.OPS.values() if issubclass(c, Elementwise)},
    **{c.name: _reduce(c) for c in o.OPS.values() if issubclass(c, Reduce)},
    **{c.name: _arg_reduce(c) for c in o.OPS.values() if issubclass(c, ArgReduce)},
    **{c.name: _window(c) for c in o.OPS.values() if issubclass(c, Window)},
    **{c.name: _softmax(c) for c in (o.Softmax, o.LogSoftmax)},
    **{c.name: _row_norm(c) for c in (o.LayerNorm, o.RmsNorm)},
    "constant": _constant,
    "iota": _iota,
    "dim_value": lambda rng: (o.DimValue(dtype_of(rng, "number"), _int(rng, 0, 99)), []),
    "random_bits": _random_bits,
    "convert": _convert,
    "select": _select,
    "broadcast_in_dim": _broadcast,
    "optimization_barrier": _barrier,
    "reshape": _reshape,
    "transpose": _transpose,
    "reverse": _reverse,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "take": _take,
    "take_along_axis": _take_along,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "index_add": _index_add,
    "arg_sort": _arg_sort,
    "dot_general": _dot,
    "conv_general": _conv,
    "conv_weight_gradient": _conv_weight,
    "max_pool_gradient": _max_pool_gradient,
    "cross_entropy": _cross_entropy,
    "batch_norm": _batch_norm,
    "variance": _variance,
    "group_norm": _group_norm,
    "attention": _attention,
    "attention_gradient": _attention_gradient,
    "resize": _resize,
    "fusion": _fusion,
    "scan": _scan,
    "cond": _cond,
}
