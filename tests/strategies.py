"""Random typed graphs over the ops, static and with named dims, for property tests of passes.

A graph grows step by step: a step picks values made so far and applies something that fits them.
Every draw goes through Hypothesis, so that a failing graph shrinks to a small one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from graphc import ops as o
from graphc.ir.dim import Bounds, Dim, DimLike, floordiv, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Scope, Value
from graphc.ir.op import Array, Op
from graphc.ir.types import TensorType
from graphc.ops import functional as f

N, T = Dim.symbol("N"), Dim.symbol("T")
SIZES = {"N": 2, "T": 3}
"""The values that named dims take when a graph is run."""


@dataclass(frozen=True)
class Program:
    """A graph with arrays to run it on."""

    graph: Graph
    inputs: dict[str, Array]
    parameters: dict[str, Array]


class Grower:
    """A builder that applies random ops to random values made so far."""

    def __init__(self, draw: st.DrawFn, *, smooth: bool) -> None:
        self.draw = draw
        self.smooth = smooth
        self.b = GraphBuilder("random", {"N": Bounds(), "T": Bounds(1, 64)})
        self.pool: list[Value] = []
        self.parameters = 0

    def pick(self, options: list[object] | list[Value] | tuple[object, ...]) -> object:
        """One of several."""
        return options[self.draw(st.integers(0, len(options) - 1))]

    def number(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return self.draw(st.integers(low, high))

    def flip(self) -> bool:
        """True or false."""
        return self.draw(st.booleans())

    def value(self, fits: Callable[[TensorType], bool] = lambda t: True) -> Value | None:
        """A value made so far whose type fits."""
        found = [v for v in self.pool if fits(self.b.type_of(v))]
        return found[-1 - self.number(0, min(5, len(found) - 1))] if found else None

    def shape(self, x: Value) -> tuple[DimLike, ...]:
        """The shape of a value."""
        return self.b.type_of(x).shape

    def parameter(self, *shape: DimLike, kind: str = "w") -> Value:
        """A new parameter; `kind="var"` gets positive numbers."""
        self.parameters += 1
        path = f"{kind}{self.parameters}"
        return self.b(o.Parameter(path, DType.F32, tuple(shape), "normal()"))

    def constant(self, *shape: int) -> Value:
        """A small constant with ties, zeros of both signs and powers of two."""
        choices = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, -0.25]
        size = int(np.prod(shape, dtype=int))
        numbers = [self.pick(choices) for _ in range(min(size, 6))]
        return self.b(o.Constant.of(np.resize(np.array(numbers, np.float32), shape)))


def is_float(t: TensorType) -> bool:
    return t.dtype is DType.F32


def _unary(g: Grower) -> Value | None:
    smooth: list[Op] = [
        o.Negate(),
        o.Abs(),
        o.Tanh(),
        o.Logistic(),
        o.Relu(),
        o.Hardtanh(0.0, 6.0),
        o.Silu(),
        o.Gelu(),
        o.Sine(),
    ]
    rough: list[Op] = [o.Sign(), o.Floor(), o.Ceil(), o.RoundNearestEven(), o.Sqrt(), o.Exp()]
    x = g.value(is_float)
    return None if x is None else g.b(g.pick(smooth if g.smooth else smooth + rough), x)


def _binary(g: Grower) -> Value | None:
    x = g.value(is_float)
    if x is None:
        return None
    rank = g.b.type_of(x).rank
    kind = g.number(0, 3)
    if kind == 0:
        y = g.value(lambda t: is_float(t) and t.shape == g.shape(x)) or x
    elif kind == 1:
        y = g.constant()
    elif kind == 2 and rank:
        axis = g.number(0, rank - 1)
        size = g.shape(x)[axis]
        y = g.constant()
        if isinstance(size, int):
            y = g.b(o.BroadcastInDim(g.shape(x), (axis,)), g.parameter(size))
    else:
        y = g.value(lambda t: is_float(t) and _broadcasts(t.shape, g.shape(x))) or x
    ops = [f.add, f.subtract, f.multiply, f.maximum, f.minimum]
    if not g.smooth:
        ops.append(f.divide)
    pair = (x, y) if g.flip() else (y, x)
    return g.pick(ops)(g.b, *pair)


def _broadcasts(shape: tuple[DimLike, ...], to: tuple[DimLike, ...]) -> bool:
    if len(shape) > len(to):
        return False
    return all(a in (1, b) for a, b in zip(shape[::-1], to[::-1], strict=False))


def _select(g: Grower) -> Value | None:
    x = g.value(is_float)
    if x is None:
        return None
    direction = g.pick(["eq", "ne", "lt", "le", "gt", "ge"])
    pred = f.compare(g.b, direction, x, g.constant())
    if g.flip():
        pred = g.b(o.Not(), pred)
    return f.select(g.b, pred, x, g.constant())


def _integers(g: Grower) -> Value | None:
    x = g.value(lambda t: is_float(t))
    if x is None or g.smooth:
        return None
    bounded = g.b(o.Convert(g.pick([DType.I32, DType.I8])), f.multiply(g.b, g.b(o.Tanh(), x), 9.0))
    changed = g.pick([f.add, f.multiply, f.subtract])(g.b, bounded, g.number(-1, 2))
    return g.b(o.Convert(DType.F32), changed)


def _convert(g: Grower) -> Value | None:
    x = g.value(is_float)
    if x is None:
        return None
    middle = g.pick([DType.F64] if g.smooth else [DType.F64, DType.F16, DType.BF16])
    return g.b(o.Convert(DType.F32), g.b(o.Convert(middle), x))


def _power(g: Grower) -> Value | None:
    x = g.value(is_float)
    return None if x is None else f.power(g.b, x, float(g.number(0, 2)))


def _transpose(g: Grower) -> Value | None:
    x = g.value(lambda t: t.rank >= 2)
    if x is None:
        return None
    return g.b(o.Transpose(tuple(g.draw(st.permutations(range(g.b.type_of(x).rank))))), x)


def _reshape(g: Grower) -> Value | None:
    x = g.value()
    if x is None:
        return None
    shape = list(g.shape(x))
    kind = g.number(0, 3)
    if kind == 0 and len(shape) >= 2:
        at = g.number(0, len(shape) - 2)
        shape[at : at + 2] = [product(shape[at : at + 2])]
    elif kind == 1 and shape:
        at = g.number(0, len(shape) - 1)
        if isinstance(shape[at], int) and shape[at] % 2 == 0:
            shape[at : at + 1] = g.pick([[2, shape[at] // 2], [shape[at] // 2, 2]])
    elif kind == 2 and len(shape) < 5:
        shape.insert(g.number(0, len(shape)), 1)
    else:
        shape = [d for d in shape if d != 1]
    return g.b(o.Reshape(tuple(shape)), x)


def _reduce(g: Grower) -> Value | None:
    x = g.value(lambda t: is_float(t) and t.rank >= 1)
    if x is None:
        return None
    rank = g.b.type_of(x).rank
    axes = g.draw(st.sets(st.integers(0, rank - 1), min_size=1))
    return g.pick([f.mean, f.max, f.min, f.sum])(g.b, x, sorted(axes), keepdims=g.flip())


def _slice(g: Grower) -> Value | None:
    x = g.value(lambda t: t.rank >= 1)
    if x is None:
        return None
    shape = g.shape(x)
    axis = g.number(0, len(shape) - 1)
    size = shape[axis]
    start: list[DimLike] = [0] * len(shape)
    limit, strides = list(shape), [1] * len(shape)
    if isinstance(size, int) and size > 1:
        start[axis] = g.number(0, size - 1)
        limit[axis] = g.number(int(start[axis]) + 1, size)
        strides[axis] = g.number(1, 2)
    whole = o.Slice(tuple(start), tuple(limit), tuple(strides))
    taken = g.b(whole, x)
    if g.flip() and isinstance(size, int) and strides[axis] == 1:
        before = tuple(0 for _ in shape)
        until = tuple(start[i] if i == axis else d for i, d in enumerate(shape))
        return g.b(o.Concatenate(axis), g.b(o.Slice(before, until, tuple(strides)), x), taken)
    return taken


def _pad(g: Grower) -> Value | None:
    x = g.value(lambda t: is_float(t) and t.rank >= 1)
    if x is None:
        return None
    rank = g.b.type_of(x).rank
    low, high = ([0] * rank for _ in range(2))
    axis = g.number(0, rank - 1)
    low[axis], high[axis] = g.number(0, 2), g.number(0, 1)
    return g.b(o.Pad(tuple(low), tuple(high), (0,) * rank, g.pick([0.0, 1.5])), x)


def _concatenate(g: Grower) -> Value | None:
    x = g.value(lambda t: t.rank >= 1)
    if x is None:
        return None
    y = g.value(lambda t: t == g.b.type_of(x)) or x
    return g.b(o.Concatenate(g.number(0, g.b.type_of(x).rank - 1)), x, y)


def _reverse(g: Grower) -> Value | None:
    x = g.value(lambda t: t.rank >= 1)
    return None if x is None else g.b(o.Reverse((g.number(0, g.b.type_of(x).rank - 1),)), x)


def _linear(g: Grower) -> Value | None:
    x = g.value(lambda t: is_float(t) and t.rank >= 2 and isinstance(t.shape[-1], int))
    if x is None:
        return None
    rank, last = g.b.type_of(x).rank, g.shape(x)[-1]
    weight = g.parameter(g.number(1, 4), last)
    y = g.b(o.DotGeneral((), (), (rank - 1,), (1,)), x, weight)
    if g.flip():
        bias = g.parameter(g.shape(y)[-1])
        y = g.b(o.Add(), y, g.b(o.BroadcastInDim(g.shape(y), (rank - 1,)), bias))
    return y


def _flatten(g: Grower) -> Value | None:
    x = g.value(
        lambda t: is_float(t) and t.rank >= 3 and all(isinstance(d, int) for d in t.shape[1:])
    )
    if x is None:
        return None
    inner = product(g.shape(x)[1:])
    if not isinstance(inner, int) or inner > 600:
        return None
    flat = g.b(o.Reshape((g.shape(x)[0], inner)), x)
    return g.b(o.DotGeneral((), (), (1,), (1,)), flat, g.parameter(3, inner))


def _product(g: Grower) -> Value | None:
    """x y^T over the last dimension, batched over the first."""
    x = g.value(lambda t: is_float(t) and t.rank == 3)
    if x is None:
        return None
    y = g.value(lambda t: is_float(t) and t.shape == g.shape(x)) or x
    return g.b(o.DotGeneral((0,), (0,), (2,), (2,)), x, y)


def _row(g: Grower) -> Value | None:
    x = g.value(lambda t: is_float(t) and t.rank >= 1)
    if x is None:
        return None
    shape = g.shape(x)
    kind = g.number(0, 2)
    if kind == 0 or not isinstance(shape[-1], int):
        return g.b(o.Softmax(g.number(0, len(shape) - 1)), x)
    if kind == 1:
        weight, bias = g.parameter(shape[-1]), g.parameter(shape[-1])
        return g.b(o.LayerNorm(1, 1e-2), x, weight, bias)
    axis = g.number(0, len(shape) - 1)
    size = shape[axis]
    if not isinstance(size, int):
        return None
    mean, var, weight, bias = (g.parameter(size, kind=k) for k in ("w", "var", "w", "w"))
    return g.b(o.BatchNorm(axis, 1e-5), x, mean, var, weight, bias)


def _is_image(t: TensorType) -> bool:
    static = t.rank >= 3 and isinstance(t.shape[1], int) and t.shape[1] <= 8
    return is_float(t) and static and t.rank <= 5 and all(_at_least(d, 3) for d in t.shape[2:])


def _at_least(dim: DimLike, low: int) -> bool:
    if isinstance(dim, int):
        return dim >= low
    return (
        dim.fold(
            lambda n: SIZES[n],
            lambda c: c,
            lambda a, b: a + b,
            lambda a, b: a * b,
            lambda a, b: a // b,
        )
        >= low
    )


def _conv(g: Grower) -> Value | None:
    x = g.value(_is_image)
    if x is None:
        return None
    spatial = g.b.type_of(x).rank - 2
    channels = g.shape(x)[1]
    kernel = g.pick([1, 2, 3])
    groups = channels if isinstance(channels, int) and g.flip() and g.flip() else 1
    out = groups * g.number(1, 2) if groups > 1 else g.number(1, 4)
    pads = tuple((g.number(0, 1), g.number(0, 2)) for _ in range(spatial))
    op = o.ConvGeneral.simple(spatial, strides=g.number(1, 2), padding=pads, groups=groups)
    weight = g.parameter(out, floordiv(channels, groups), *(kernel,) * spatial)
    y = g.b(op, x, weight)
    if g.flip():
        y = f.add(g.b, y, g.b(o.BroadcastInDim(g.shape(y), (1,)), g.parameter(out)))
    if g.flip():
        mean, var, scale, bias = (g.parameter(out, kind=k) for k in ("w", "var", "w", "w"))
        y = g.b(o.BatchNorm(1, 1e-5), y, mean, var, scale, bias)
    return y


def _pool(g: Grower) -> Value | None:
    x = g.value(_is_image)
    if x is None:
        return None
    spatial = g.b.type_of(x).rank - 2
    ones = (1,) * spatial
    pads = tuple((g.number(0, 1),) * 2 for _ in range(spatial))
    cls = g.pick([o.MaxPool, o.AvgPool, o.WindowSum])
    return g.b(cls((2,) * spatial, (g.number(1, 2),) * spatial, pads, ones), x)


def _image_op(g: Grower) -> Value | None:
    x = g.value(_is_image)
    if x is None:
        return None
    shape = g.shape(x)
    channels = shape[1]
    kind = g.number(0, 2)
    if kind == 0:
        return g.b(o.Resize(tuple(d * 2 for d in shape[2:]), "nearest"), x)
    if kind == 1:
        weight, bias = g.parameter(channels), g.parameter(channels)
        return g.b(o.GroupNorm(1, 1e-2), x, weight, bias)
    gate = f.mean(g.b, x, range(2, len(shape)), keepdims=True)
    return f.multiply(g.b, x, g.b(o.Logistic(), gate))


def _branch(g: Grower) -> Value | None:
    """The same value through two convolutions, added or joined."""
    x = g.value(lambda t: _is_image(t))
    if x is None:
        return None
    spatial = g.b.type_of(x).rank - 2
    sizes = (1,) * spatial, (3,) * spatial
    convs = [o.ConvGeneral.simple(spatial, padding=(k[0] - 1) // 2) for k in sizes]
    left, right = (
        g.b(op, x, g.parameter(2, g.shape(x)[1], *k)) for op, k in zip(convs, sizes, strict=True)
    )
    return g.b(o.Add(), left, right) if g.flip() else g.b(o.Concatenate(1), left, right)


def _attention(g: Grower) -> Value | None:
    x = g.value(lambda t: is_float(t) and t.rank == 3 and t.shape[-1] == 4)
    if x is None:
        return None
    heads = g.b(o.Reshape((*g.shape(x)[:2], 2, 2)), x)
    heads = g.b(o.Transpose((0, 2, 1, 3)), heads)
    y = g.b(o.Attention(0.5, g.flip()), heads, heads, heads)
    return g.b(o.Reshape(g.shape(x)), g.b(o.Transpose((0, 2, 1, 3)), y))


def _compare(g: Grower) -> Value | None:
    x = g.value(lambda t: t.dtype in (DType.F32, DType.I32))
    if x is None or g.smooth:
        return None
    y = g.value(lambda t: t == g.b.type_of(x)) or x
    return g.b(o.Compare(g.pick(["eq", "ne", "lt", "le", "gt", "ge"])), x, y)


def _logical(g: Grower) -> Value | None:
    x = g.value(lambda t: t.dtype is DType.BOOL)
    if x is None:
        return None
    if g.number(0, 2) == 0:
        return g.b(o.Not(), x)
    y = g.value(lambda t: t == g.b.type_of(x)) or x
    if g.flip():
        scalar = g.b(o.Constant.of(np.array(g.flip())))
        y = f.broadcast_to(g.b, scalar, g.shape(x))
    pair = (x, y) if g.flip() else (y, x)
    return g.b(g.pick([o.And(), o.Or(), o.Xor()]), *pair)


def _integer(g: Grower) -> Value | None:
    x = g.value(lambda t: t.dtype is DType.I32)
    if x is None:
        source = g.value(lambda t: is_float(t) and t.rank <= 3)
        if source is None or g.smooth:
            return None
        return g.b(o.Convert(DType.I32), f.multiply(g.b, g.b(o.Tanh(), source), 5.0))
    y = g.value(lambda t: t == g.b.type_of(x)) or x
    other = g.pick([y, g.number(-1, 2)])
    if g.flip():
        return g.b(g.pick([o.FloorDivide(), o.Remainder()]), x, y)
    return g.pick([f.add, f.subtract, f.multiply, f.maximum])(g.b, x, other)


def _take(g: Grower) -> Value | None:
    """Rows of a table, chosen by counting."""
    size = g.number(2, 4)
    rows = g.b(o.Iota(DType.I64, (size,), 0))
    return g.b(o.Take(0), g.parameter(5, 4), rows)


STEPS: list[Callable[[Grower], Value | None]] = [
    _unary,
    _binary,
    _binary,
    _select,
    _integers,
    _convert,
    _power,
    _transpose,
    _transpose,
    _reshape,
    _reduce,
    _slice,
    _pad,
    _concatenate,
    _reverse,
    _linear,
    _flatten,
    _product,
    _row,
    _conv,
    _conv,
    _pool,
    _image_op,
    _branch,
    _attention,
    _compare,
    _logical,
    _integer,
    _take,
]

INPUTS: list[tuple[DimLike, ...]] = [
    (2, 3, 6, 5),
    (N, 4, 5, 4),
    (N, 2, 2 * T, 6),
    (N, T, 4),
    (2, 4, 7),
    (1, 2, 4, 4, 3),
    (T, 4),
    (3,),
    (),
]
MAX_ELEMENTS = 3000


@st.composite
def programs(draw: st.DrawFn, *, smooth: bool = False, steps: int = 16) -> Program:
    """A random graph with arrays for its inputs and parameters.

    `smooth` leaves out what turns a rounding difference into a large one.
    """
    g = Grower(draw, smooth=smooth)
    shapes = draw(st.lists(st.sampled_from(INPUTS), min_size=1, max_size=2))
    for i, shape in enumerate(shapes):
        g.pool.append(g.b(o.Input(f"x{i}", DType.F32, shape)))
    for i in range(draw(st.integers(6, steps))):
        with g.b.at((Scope(f"s{i}", "Step"),), None):
            made = g.pick(STEPS)(g)
        if made is not None and np.prod(g.b.type_of(made).concrete(SIZES)) <= MAX_ELEMENTS:
            g.pool.append(made)
    outputs = [("last", g.pool[-1])]
    if len(g.pool) > 1 and draw(st.booleans()):
        outputs.append(("other", g.pool[draw(st.integers(0, len(g.pool) - 1))]))
    graph = g.b.build(outputs)
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    inputs = {n.op.label: _array(rng, n.types[0]) for n in graph.inputs}
    parameters = {n.op.path: _array(rng, n.types[0], n.op.path) for n in graph.parameters}
    return Program(_declare(graph), inputs, parameters)


def _declare(graph: Graph) -> Graph:
    """The graph without named dims that no input shows, which could not be bound."""
    used = {n for node in graph.inputs for d in node.types[0].shape for n in _names(d)}
    dims = {n: b for n, b in graph.dims.items() if n in used}
    return Graph(graph.name, dims, graph.nodes, graph.outputs)


def _names(dim: DimLike) -> tuple[str, ...]:
    return dim.names if isinstance(dim, Dim) else ()


def _array(rng: np.random.Generator, type: TensorType, path: str = "") -> Array:
    x = np.round(rng.normal(size=type.concrete(SIZES)) * 8) / 8
    return (np.abs(x) + 0.5 if path.startswith("var") else x).astype(np.float32)
