"""Small typed helpers over TVM's IRBuilder, in which every CPU kernel family is written.

A kernel is a plain C function over raw pointers and 64-bit extents::

    with kernel("scale", {"x": "float32", "y": "float32"}, dims=("n",)) as k:
        x, y = k.view("x", (k.dim("n"),)), k.view("y", (k.dim("n"),))

        def body(start, lanes):
            y.store(x.load((start,), lanes) * const(2.0, "float32", lanes), (start,))

        along(k.dim("n"), target.lanes("float32"), body)
    k.function  # a PrimFunc that returns int32 0

Conventions: all index arithmetic is int64; an extent is a Python ``int`` or an int64 expression; a
"vector" has any power-of-two number of lanes down to one, which is a scalar; memory is addressed
through :class:`View`, whose loads assume no more alignment than one element has. Comparisons and
arithmetic are the operators of TVM expressions.

This file is longer than most because it is the whole vocabulary of the families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, Protocol

from graphc.ir.dim import Dim, floordiv

__all__ = [
    "SHARED_FLOPS",
    "Expr",
    "Extent",
    "Finish",
    "Kernel",
    "Operand",
    "Registers",
    "View",
    "along",
    "as_named",
    "bind",
    "branch",
    "call",
    "call_symbol",
    "cast",
    "ceil_div",
    "clear",
    "const",
    "dtype_of",
    "floor_div",
    "fold_lanes",
    "fused_loop",
    "i64",
    "is_named",
    "kernel",
    "lanes_of",
    "local",
    "loop",
    "maximum_extent",
    "minimum_extent",
    "near",
    "near_equal_tiles",
    "power_of_two_ladder",
    "prefetch",
    "product",
    "remainder",
    "remainder_tiles",
    "select",
    "shuffle",
    "splat",
    "static",
    "stored",
    "symbol",
    "tiles",
    "unflatten",
    "vector_pieces",
    "when",
    "worth_threads",
]

Expr = Any
"""A TVM primitive expression (TVM ships no types)."""

Extent = int | Any
"""A number of iterations or elements: a Python int, or an int64 :data:`Expr`."""

Finish = Callable[[Sequence[Extent], Expr, int], None]
"""``finish(index, value, lanes)`` receives a root's result for ``lanes`` consecutive elements along
the last index (``index`` is the first one's position in the root's logical output) and emits the
epilogue and the stores. A generator calls it exactly once for every element of its output."""


@cache
def _t() -> Any:
    """TVM's statement builder, imported when the first kernel is emitted."""
    from tvm.script.ir_builder import tirx

    return tirx


@dataclass(frozen=True)
class _Memory:
    """The builder's functions for memory, a million calls of a large model: TVM's own wrappers around them take most
    of the time, for forms of arguments that nothing here uses.
    """

    load: Callable[[Any, list[Expr], None], Expr]
    store: Callable[[Any, Expr, list[Expr]], None]
    allocate: Callable[[list[Expr], Any, str, None], Any]


@cache
def _memory() -> _Memory:
    import tvm

    names = ("ir.SubscriptExprRealize", *(f"script.ir_builder.tirx.{n}" for n in _STATEMENTS))
    return _Memory(*map(tvm.get_global_func, names))


_STATEMENTS = ("BufferStore", "AllocBuffer")


def _load(buffer: Any, index: Expr) -> Expr:
    return _memory().load(buffer, [index], None)


def _store(buffer: Any, value: Expr, index: Expr) -> None:
    _memory().store(buffer, value, [index])
    global _stores
    _stores += 1


_stores = 0


def stores() -> int:
    """How many stores have been emitted: what is between two calls tells how long it takes to compile."""
    return _stores


# ------------------------------------------------------------------------------------------- values


def static(extent: Extent) -> int | None:
    """The value of ``extent`` where it is known while compiling, else ``None``."""
    if isinstance(extent, int):
        return extent
    value = getattr(extent, "value", None)
    return value if isinstance(value, int) else None


def i64(value: Extent) -> Expr:
    """``value`` as an int64 expression."""
    return _integer(value) if isinstance(value, int) else value


# Expressions never change, so that one object may stand in many places.
@lru_cache(maxsize=1 << 14)
def _integer(value: int) -> Expr:
    return _t().int64(value)


@lru_cache(maxsize=1 << 12)
def _ramp(start: int, lanes: int) -> Expr:
    """The constant index of consecutive elements."""
    return i64(start) if lanes == 1 else _t().ramp(i64(start), i64(1), lanes)


def _consecutive(start: Extent, lanes: int) -> Expr:
    if isinstance(start, int):
        return _ramp(start, lanes)
    return start if lanes == 1 else _t().ramp(start, i64(1), lanes)


_TYPES: dict[int, tuple[Any, str, int]] = {}
"""By address, of TVM's types, of which there is one for each dtype: the type, which keeps it there, and its parts."""


def _type_of(value: Expr) -> tuple[Any, str, int]:
    type = value.ty
    known = _TYPES.get(type.__chandle__())
    if known is None:
        dtype = type.dtype
        known = (type, str(dtype).partition("x")[0], int(dtype.lanes))
        if len(_TYPES) < 1 << 10:
            _TYPES[type.__chandle__()] = known
    return known


def dtype_of(value: Expr) -> str:
    """The element type of a scalar or vector expression, e.g. ``"float32"``."""
    return _type_of(value)[1]


def lanes_of(value: Expr) -> int:
    """The number of lanes of an expression; 1 for a scalar."""
    return _type_of(value)[2]


def splat(value: Expr, lanes: int) -> Expr:
    """``lanes`` copies of a scalar; a vector that has them already is returned as it is."""
    if lanes == 1 or lanes_of(value) == lanes:
        return value
    return _t().broadcast(value, lanes)


def const(value: float | int | bool, dtype: str, lanes: int = 1) -> Expr:
    """A constant of ``dtype`` in every lane; infinities and NaN are allowed."""
    import tvm.tirx as tx

    return splat(tx.const(value, dtype), lanes)


def bind(value: Expr) -> Expr:
    """Names ``value``, so that using it twice computes it once.

    Floats and vectors go through a stack slot, which LLVM turns back into a register: TVM's
    simplifier would substitute a ``Bind`` into its uses again, in exponential time.
    """
    if is_named(value):
        return value
    dtype, lanes = dtype_of(value), lanes_of(value)
    if dtype == "bool" or (lanes == 1 and "float" not in dtype):
        return _t().bind(value)
    return stored(value)


def stored(value: Expr) -> Expr:
    """``value`` by way of memory, where TVM's simplifier does not look; LLVM makes a register of it.

    A divisor made safe by ``select(d == 0, 1, d)`` would become d again inside of
    ``select(d == 0, 0, a / d)``, both sides of which are evaluated.
    """
    if is_named(value):
        return value
    _, dtype, lanes = _type_of(value)
    slot = local(lanes, dtype)
    index = _ramp(0, lanes)
    _store(slot, value, index)
    return as_named(_load(slot, index))


def is_named(value: Expr) -> bool:
    """Whether an expression is a slot that is written once: it may be used twice as it stands."""
    return getattr(value, "graphc_named", False)


def as_named(value: Expr) -> Expr:
    """Marks an expression as one that may be used twice, see :func:`is_named`."""
    value.graphc_named = True
    return value


def local(width: int, dtype: str) -> Any:
    """A flat TVM buffer of ``width`` elements on the stack of the function."""
    # A layout, which only GPU kernels need, would take half the time of emitting a kernel.
    return _memory().allocate([i64(width)], _type_named(dtype), "global", None)


@cache
def _type_named(dtype: str) -> Any:
    import tvm

    return tvm.ir.PrimType(dtype)


def select(condition: Expr, true_value: Expr, false_value: Expr) -> Expr:
    """Lane by lane ``condition ? true_value : false_value``; both are evaluated."""
    return _t().Select(condition, true_value, false_value)


def cast(value: Expr, dtype: str) -> Expr:
    """``value`` converted to element type ``dtype``, as C converts (truncation towards zero)."""
    if dtype_of(value) == dtype:
        return value
    lanes = lanes_of(value)
    return _t().Cast(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def shuffle(vectors: Sequence[Expr], lanes: Sequence[int]) -> Expr:
    """The vector whose lanes are those numbered ``lanes`` of the concatenated ``vectors``."""
    import tvm.tirx as tx

    return tx.Shuffle(list(vectors), [tx.const(i, "int32") for i in lanes])


def ceil_div(extent: Extent, size: int) -> Extent:
    """``extent / size`` rounded up, for a non-negative extent."""
    known = static(extent)
    return -(-known // size) if known is not None else floor_div(extent + (size - 1), size)


def remainder(extent: Extent, size: int) -> Extent:
    """``extent % size`` for a non-negative extent."""
    known = static(extent)
    return known % size if known is not None else _t().truncmod(extent, i64(size))


def minimum_extent(a: Extent, b: Extent) -> Extent:
    """The smaller of two extents."""
    x, y = static(a), static(b)
    return min(x, y) if x is not None and y is not None else _t().min(i64(a), i64(b))


def maximum_extent(a: Extent, b: Extent) -> Extent:
    """The larger of two extents."""
    x, y = static(a), static(b)
    return max(x, y) if x is not None and y is not None else _t().max(i64(a), i64(b))


def product(extents: Sequence[Extent]) -> Extent:
    """The product of extents, static where all are; 1 for none."""
    result: Extent = 1
    for extent in extents:
        known = static(extent)
        result = result * (extent if known is None else known)
    return result


def floor_div(a: Extent, b: Extent) -> Extent:
    """``a // b`` of non-negative extents."""
    x, y = static(a), static(b)
    if isinstance(a, Dim) or isinstance(b, Dim):  # before there is code: sizes of scratch memory
        return floordiv(a, b)
    return x // y if x is not None and y is not None else _t().truncdiv(i64(a), i64(b))


def fold_lanes(value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """Reduces a vector to a scalar by an associative ``combine``, halving log2(lanes) times."""
    lanes = lanes_of(value)
    while lanes > 1:
        lanes //= 2
        whole = bind(value)
        dtype = dtype_of(whole) + (f"x{lanes}" if lanes > 1 else "")
        low = _t().vectorlow(dtype, whole)
        value = combine(low, _t().vectorhigh(dtype, whole))
    return value


# ------------------------------------------------------------------------------------------- memory


class Operand(Protocol):
    """Anything that can be read at an index: a :class:`View`, or a fused producer."""

    def load(self, index: Sequence[Extent], lanes: int = 1) -> Expr:
        """``lanes`` consecutive elements along the last index, starting at ``index``."""
        ...


@dataclass(frozen=True)
class View:
    """A strided tensor in memory behind one raw pointer.

    Attributes:
        buffer: the flat TVM buffer of the pointer.
        dtype: element type as the graph sees it; ``bool`` occupies a byte, and values of
            ``bfloat16`` and ``float16`` are float32 expressions; bfloat16 is rounded before it is stored.
        strides: distance in elements between neighbours along each dimension; 0 repeats.
        offset: elements from the pointer to index (0, ..., 0).
    """

    buffer: Any
    dtype: str
    strides: tuple[Extent, ...]
    offset: Extent = 0

    def position(self, index: Sequence[Extent]) -> Extent:
        """Elements from the pointer to ``index``."""
        if len(index) != len(self.strides):
            raise ValueError(f"index of rank {len(index)} into a view of rank {len(self.strides)}")
        known, position = 0, self.offset
        for i, stride in zip(index, self.strides, strict=True):
            if isinstance(i, int) and isinstance(stride, int):
                known += i * stride
            else:
                position = position + i * stride
        return position + known if known else position

    def _index(self, index: Sequence[Extent], lanes: int) -> Expr:
        base = self.position(index)
        if lanes == 1 or static(self.strides[-1]) == 1:
            return _consecutive(base, lanes)
        return _t().ramp(i64(base), i64(self.strides[-1]), lanes)

    def load(self, index: Sequence[Extent], lanes: int = 1) -> Expr:
        """``lanes`` elements along the last dimension, gathered where its stride is not 1."""
        if lanes > 1 and static(self.strides[-1]) == 0:
            return splat(self.load(index), lanes)
        value = _load(self.buffer, self._index(index, lanes))
        if self.dtype == "bfloat16":
            from graphc.lowering.cpu.bfloat import widened

            return widened(value)
        if self.dtype == "float16":
            return cast(value, "float32")
        return value != const(0, "uint8", lanes) if self.dtype == "bool" else value

    def store(self, value: Expr, index: Sequence[Extent]) -> None:
        """Stores all lanes of ``value`` along the last dimension from ``index`` on."""
        if self.dtype == "bool":
            value = cast(value, "uint8")
        elif self.dtype == "float16":
            value = cast(value, "float16")
        elif self.dtype == "bfloat16":
            from graphc.lowering.cpu.bfloat import narrowed

            value = narrowed(value)
        _store(self.buffer, value, self._index(index, lanes_of(value)))

    def address(self, index: Sequence[Extent]) -> Expr:
        """The raw pointer to the element at ``index``."""
        return _t().address_of(self.buffer[i64(self.position(index))])

    def shifted(self, by: Sequence[Extent]) -> View:
        """The view whose index (0, ..., 0) is this one's index ``by``."""
        return replace(self, offset=self.position(by))

    def near(self, by: Sequence[Extent]) -> View:
        """As :meth:`shifted`, with the position computed here, once: what is read close to it is a constant away."""
        position = self.position(by)
        return replace(self, offset=position if static(position) is not None else stored(position))


@dataclass(frozen=True)
class Shifted:
    """An operand as it looks from index ``by``."""

    source: Operand
    by: tuple[Extent, ...]

    def load(self, index: Sequence[Extent], lanes: int = 1) -> Expr:
        """``lanes`` consecutive elements along the last index, starting ``index`` from there."""
        return self.source.load([b + i for b, i in zip(self.by, index, strict=True)], lanes)


def near(source: Operand, by: Sequence[Extent]) -> Operand:
    """An operand as it looks from index ``by``; where it is memory, the position is computed here, once."""
    return source.near(by) if isinstance(source, View) else Shifted(source, tuple(by))


class Registers:
    """Accumulators of a tile: ``rows`` buffers of ``width`` elements that LLVM keeps in registers.

    One small stack array per row: LLVM promotes only arrays whose every access has a constant
    position, so loops over rows and columns must be unrolled by the generator.
    """

    def __init__(self, rows: int, width: int, dtype: str) -> None:
        import numpy as np

        if width * np.dtype(dtype).itemsize >= 1024:
            raise ValueError(f"a row of {width} {dtype} is too large for registers")
        self.rows, self.width, self.dtype = rows, width, dtype
        self._rows = [local(width, dtype) for _ in range(rows)]

    def get(self, row: int, column: Extent = 0, lanes: int = 1) -> Expr:
        """``lanes`` elements of ``row`` from ``column`` on; a symbolic column keeps the row in memory."""
        return _load(self._rows[row], _consecutive(column, lanes))

    def set(self, value: Expr, row: int, column: Extent = 0) -> None:
        """Replaces the elements of ``row`` from ``column`` on by the lanes of ``value``."""
        _store(self._rows[row], value, _consecutive(column, lanes_of(value)))


def clear(flat: View, start: Extent, length: Extent) -> None:
    """Sets ``length`` elements of a flat view to zero by ``memset``, which LLVM neither unrolls nor has to find."""
    import numpy as np

    t = _t()
    size = i64(length * (2 if flat.dtype == "bfloat16" else np.dtype(flat.dtype).itemsize))
    t.evaluate(t.call_extern("handle", "memset", flat.address((start,)), t.int32(0), size))


def prefetch(address: Expr, near: int = 3) -> None:
    """Asks for the cache line at ``address`` to be brought close, for reading: 3 closest, 2 second-level cache."""
    t = _t()
    read, data = t.int32(0), t.int32(1)
    t.evaluate(t.call_llvm_intrin("void", "llvm.prefetch.p0", address, read, t.int32(near), data))


# -------------------------------------------------------------------------------------------- loops


@contextmanager
def loop(extent: Extent, *, parallel: bool = False) -> Iterator[Extent]:
    """A loop over ``range(extent)``, yielding the index; an extent of 1 emits no loop."""
    if static(extent) == 1:
        yield 0
        return
    t = _t()
    with (t.parallel if parallel else t.serial)(i64(0), i64(extent)) as index:
        yield index


@contextmanager
def fused_loop(
    extents: Sequence[Extent], *, parallel: bool = False
) -> Iterator[tuple[Extent, ...]]:
    """One loop over the product of ``extents``, first slowest; yields one index for each.

    A parallel loop is cut into one contiguous run per thread, so the slowest extent is what the
    threads share out, and the faster ones what they share out when it is short.
    """
    with loop(product(extents), parallel=parallel) as flat:
        yield unflatten(flat, extents)


def unflatten(flat: Extent, extents: Sequence[Extent]) -> tuple[Extent, ...]:
    """The indices of position ``flat`` in a row-major box of ``extents``."""
    indices: list[Extent] = []
    rest = flat
    for extent in reversed(extents[1:]):
        if static(extent) == 1 or static(rest) == 0:
            indices.append(0)
            continue
        indices.append(bind(_t().truncmod(i64(rest), i64(extent))))
        rest = bind(i64(floor_div(rest, extent)))
    indices.append(rest if extents else 0)
    return tuple(reversed(indices)) if extents else ()


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Runs the body only where a scalar ``condition`` holds."""
    t = _t()
    with t.If(condition), t.Then():
        yield


def branch(condition: Expr, true_body: Callable[[], None], false_body: Callable[[], None]) -> None:
    """Emits ``if (condition) true_body() else false_body()`` for a scalar condition."""
    t = _t()
    with t.If(condition):
        with t.Then():
            true_body()
        with t.Else():
            false_body()


def near_equal_tiles(extent: int, size: int) -> list[tuple[int, int, int]]:
    """Splits ``range(extent)`` into ``ceil(extent / size)`` tiles that differ by at most one.

    Returns up to two runs ``(start, count, tile)``: ``count`` tiles of ``tile`` elements each from
    ``start`` on. Nothing is masked and no tile is much smaller than the others.
    """
    if extent <= 0:
        return []
    number = -(-extent // size)
    base, larger = divmod(extent, number)
    runs = []
    if larger:
        runs.append((0, larger, base + 1))
    if number - larger:
        runs.append((larger * (base + 1), number - larger, base))
    return runs


def power_of_two_ladder(size: int) -> list[int]:
    """The powers of two below ``size``, falling: any remainder is a sum of some of them."""
    return [1 << p for p in reversed(range((size - 1).bit_length()))]


def tiles(extent: Extent, size: int, body: Callable[[Extent, int], None]) -> None:
    """Covers ``range(extent)`` by tiles of a size known to the generator.

    ``body(start, count)`` emits one tile. A static extent is split into near-equal tiles of at most
    ``size``. A symbolic one becomes a loop over full tiles and, for what is left, one conditional
    tile per power of two below ``size``.
    """
    known = static(extent)
    if known is not None:
        for start, count, tile in near_equal_tiles(known, size):
            with loop(count) as i:
                body(start + i * tile, tile)
        return
    with loop(floor_div(extent, size)) as i:
        body(i * size, size)
    remainder_tiles(extent, size, body)


def remainder_tiles(extent: Extent, size: int, body: Callable[[Extent, int], None]) -> None:
    """Covers the last ``extent % size`` elements of a symbolic extent by powers of two below ``size``."""
    ladder = power_of_two_ladder(size)
    if not ladder:
        return
    rest = bind(remainder(extent, size))
    done = extent - rest
    for tile in ladder:
        # The bits above `tile` are covered by the steps before, those below by the steps after.
        before = rest - remainder(rest, 2 * tile) if 2 * tile < size else i64(0)
        with when(remainder(rest, 2 * tile) >= i64(tile)):
            body(bind(done + before), tile)


def vector_pieces(width: int, lanes: int) -> list[tuple[int, int]]:
    """Cuts ``width`` elements into ``(start, lanes)``, powers of two of at most ``lanes``."""
    pieces = []
    start = 0
    while start < width:
        while lanes > width - start:
            lanes //= 2
        pieces.append((start, lanes))
        start += lanes
    return pieces


def along(extent: Extent, lanes: int, body: Callable[[Extent, int], None], unroll: int = 1) -> None:
    """Covers a contiguous axis by vectors: ``body(start, lanes)`` emits one.

    Full vectors in a loop (``unroll`` of them per iteration where static), then ever narrower ones
    down to scalars; nothing beyond the extent is touched.
    """
    known = static(extent)
    if known is None:
        tiles(extent, lanes, body)
        return
    full = known // lanes
    if full:
        step = unroll if full % unroll == 0 else 1
        with loop(full // step) as i:
            for u in range(step):
                body((i * step + u) * lanes, lanes)
    for start, piece in vector_pieces(known - full * lanes, lanes):
        body(full * lanes + start, piece)


# What a core is assumed to do per second when deciding about threads: careful guesses, since a
# wrong "serial" costs at most the microseconds that a parallel region would have cost anyway.
_FLOPS_PER_SECOND = 60e9
_BYTES_PER_SECOND = 12e9
_REGION_SECONDS = 5e-6
SHARED_FLOPS = int(_FLOPS_PER_SECOND * _REGION_SECONDS)
"""Arithmetic of a loop from which on threads should share it."""


def worth_threads(flops: Extent, bytes_moved: Extent = 0) -> bool:
    """Whether work should be shared among threads: when static, if it takes about 5 µs or more.

    A parallel region costs 1.3 µs hot and 3-10 µs after idling. Symbolic work counts as large.
    """
    known_flops, known_bytes = static(flops), static(bytes_moved)
    if known_flops is None or known_bytes is None:
        return True
    seconds = max(known_flops / _FLOPS_PER_SECOND, known_bytes / _BYTES_PER_SECOND)
    return seconds >= _REGION_SECONDS


# ------------------------------------------------------------------------------------------ kernels


class Kernel:
    """A kernel under construction; made by :func:`kernel`.

    Attributes:
        function: the finished PrimFunc, after the ``with`` block has ended.
    """

    function: Any

    def __init__(self, pointers: Mapping[str, tuple[Any, str]], dims: Mapping[str, Expr]) -> None:
        self._dims = dict(dims)
        self._dtypes = {name: dtype for name, (_, dtype) in pointers.items()}
        t = _t()
        # The extent is never used: views address by strides. It must only exceed every index.
        size = t.int64(1 << 46)
        self._buffers = {
            name: t.decl_buffer((size,), _storage(dtype), data=pointer)
            for name, (pointer, dtype) in pointers.items()
        }

    def dim(self, name: str) -> Expr:
        """The int64 parameter ``name``."""
        return self._dims[name]

    def view(
        self,
        name: str,
        shape: Sequence[Extent],
        *,
        strides: Sequence[Extent] | None = None,
        offset: Extent = 0,
    ) -> View:
        """A tensor behind pointer ``name``: row-major of ``shape`` unless ``strides`` are given."""
        if strides is None:
            strides = [product(shape[i + 1 :]) for i in range(len(shape))]
        elif len(strides) != len(shape):
            raise ValueError(f"{len(strides)} strides for a view of rank {len(shape)}")
        return View(self._buffers[name], self._dtypes[name], tuple(strides), offset)


def _storage(dtype: str) -> str:
    """How an element type lies in memory: booleans as bytes, bfloat16 as 16-bit words."""
    return {"bool": "uint8", "bfloat16": "uint16"}.get(dtype, dtype)


@contextmanager
def kernel(
    name: str,
    pointers: Mapping[str, str],
    dims: Sequence[str] = (),
    *,
    public: bool = False,
    noalias: bool = True,
) -> Iterator[Kernel]:
    """Opens the definition of a kernel; statements of the ``with`` body become its body.

    Args:
        name: the function's name; the C symbol of a public one.
        pointers: parameter name -> element dtype, in the order of the C parameters.
        dims: names of int64 parameters, which follow the pointers.
        public: a C symbol ``int32_t name(ptr..., int64_t...)``; otherwise a private function, which
            another of the same module calls through its GlobalVar.
        noalias: promise that different pointers never reach the same memory. An in-place kernel
            must either use one pointer for both or pass ``False``.
    """
    import tvm
    import tvm.tirx as tx
    from tvm.script.ir_builder import IRBuilder

    t = _t()
    with IRBuilder() as builder, t.prim_func(is_private=not public):
        t.func_name(name)
        attrs: dict[str, Any] = {"tirx.noalias": True} if noalias else {}
        if public:
            attrs |= {"global_symbol": name, "calling_conv": 1}
        t.func_attr(attrs)
        # All parameters come before the first buffer declaration, or TVM refuses them.
        handles = {p: (t.arg(p, t.handle(_storage(d))), d) for p, d in pointers.items()}
        extents = {d: t.arg(d, t.int64()) for d in dims}
        result = Kernel(handles, extents)
        yield result
    function = builder.get()
    # A function that holds a parallel loop needs an int32 result: its error exits return one.
    body = tx.SeqStmt([function.body, tx.Return(tx.const(0, "int32"))])
    result.function = tx.PrimFunc(function.params, body, tvm.ir.PrimType("int32"), function.attrs)


def symbol(name: str) -> Any:
    """A module-level name (``GlobalVar``), by which private kernels are compiled and called."""
    import tvm

    return tvm.ir.GlobalVar(name)


def call(function: Any, *arguments: Expr) -> None:
    """Calls a private kernel of the same module through its :func:`symbol`."""
    _t().evaluate(function(*arguments))


def call_symbol(name: str, *arguments: Expr) -> None:
    """Calls a public kernel, possibly of another object, by its C symbol."""
    t = _t()
    t.evaluate(t.call_extern("int32", name, *arguments))
