"""Ops whose positions are data, and how each is the other's gradient (hence a few lines more than most files).

One rule for all: an index outside 0 <= i < size is a fault, negative ones included (`evaluate` raises IndexError, a
compiled module reports an error). Callers that want Python's wrap-around add the size to negative indices first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape
from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read, Stacked
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.ops.errors import check_axis, check_kind, check_length, check_rank, show
from graphc.ops.numerics import as_f64, rounded, working
from graphc.ops.shape import concrete
from graphc.ops.source import Iota


def _in_range(op: str, indices: Array, size: int) -> Array:
    """The indices, after checking them. Raises IndexError naming the first one out of range."""
    bad = (indices < 0) | (indices >= size)
    if bad.any():
        raise IndexError(f"{op}: index {int(indices[bad].reshape(-1)[0])} is not in 0..{size - 1}")
    return indices.astype(np.intp)


@dataclass(frozen=True)
class Take(Op):
    """Picks positions along `axis` (numpy.take); operands (x, integer indices of any shape).

    The indices' shape replaces the axis: an embedding is `Take(0)` of the table.
    """

    name: ClassVar[str] = "take"
    pattern: ClassVar[Pattern] = Pattern.INDEX
    arity: ClassVar[int | None] = 2
    family: ClassVar[str] = "index"
    checked: ClassVar[bool] = True
    axis: int

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's shape with the axis replaced. Raises OpError E0206 or E0211."""
        x, indices = operands
        check_axis(self.name, self.axis, x.rank, x.shape, 0)
        check_kind(self.name, indices, "int", 1)
        return (x.with_shape(x.shape[: self.axis] + indices.shape + x.shape[self.axis + 1 :]),)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """Rows of one table for the indices of all steps."""
        return Stacked(self) if self.axis == 0 and not each[0] else None

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's take. Raises IndexError."""
        x, indices = operands
        at = _in_range(self.name, indices, x.shape[self.axis])
        return (np.take(x, at, self.axis),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The operand at a checked index."""
        x, indices = operands
        inner = index[self.axis : self.axis + indices.rank]
        at = e.checked_index(e.cast(read(1, inner), DType.I64), x.shape[self.axis])
        return read(0, [*index[: self.axis], at, *index[self.axis + indices.rank :]])

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent's rows added up where they were taken."""
        type, at = p.b.type_of(p.operands[0]), p.b.type_of(p.operands[1])
        rows = (*type.shape[: self.axis], at.size, *type.shape[self.axis + 1 :])
        flat = p.reshape(p.operands[1], (at.size,))
        op = IndexAdd(self.axis)
        return p.b(op, p.zeros(type), flat, p.reshape(p.cotangent, rows)), None


@dataclass(frozen=True)
class TakeAlongAxis(Op):
    """Picks one element per result element along `axis`; operands (x, indices), equal in all other dimensions."""

    name: ClassVar[str] = "take_along_axis"
    pattern: ClassVar[Pattern] = Pattern.INDEX
    arity: ClassVar[int | None] = 2
    family: ClassVar[str] = "index"
    checked: ClassVar[bool] = True
    axis: int

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's element type in the indices' shape. Raises OpError E0202, E0205, E0206 or E0211."""
        x, indices = operands
        check_axis(self.name, self.axis, x.rank, x.shape, 0)
        check_kind(self.name, indices, "int", 1)
        check_rank(self.name, indices, x.rank, 1, "indices")
        for axis, (a, b) in enumerate(zip(x.shape, indices.shape, strict=True)):
            if axis != self.axis and a != b:
                raise OpError(
                    f"take_along_axis {self.axis} of {x} by {indices}: they differ in axis {axis}",
                    operand=1,
                    code="E0202",
                )
        return (x.with_shape(indices.shape),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's take_along_axis. Raises IndexError."""
        x, indices = operands
        at = _in_range(self.name, indices, x.shape[self.axis])
        return (np.take_along_axis(x, at, self.axis),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The operand at a checked index."""
        at = e.checked_index(e.cast(read(1, index), DType.I64), operands[0].shape[self.axis])
        return read(0, [*index[: self.axis], at, *index[self.axis + 1 :]])

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same op along the axis the transpose brought here."""
        return TakeAlongAxis(permutation[self.axis]), permutation

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent's elements added up where they were taken.

        Where one is taken of each row, no addition is needed: the position is compared.
        """
        b, (x, indices) = p.b, p.operands
        type, at = b.type_of(x), b.type_of(indices)
        wide = arith.convert(b, indices, DType.I64)
        if at.shape[self.axis] == 1:
            dims = tuple(range(type.rank))
            here = b(Iota(DType.I64, type.shape, self.axis))
            chosen = arith.compare(b, "eq", here, arith.as_spread(b, wide, type.shape, dims))
            spread = arith.as_spread(b, p.cotangent, type.shape, dims)
            return arith.select(b, chosen, spread, 0.0), None
        place: Value | None = None
        for axis, size in enumerate(type.shape):
            step = wide if axis == self.axis else b(Iota(DType.I64, at.shape, axis))
            if place is not None:
                scale = arith.dim_scalar(b, size, DType.I64)
                step = arith.add(b, arith.multiply(b, place, scale), step)
            place = step
        assert place is not None
        zeros = p.zeros(type.with_shape((type.size,)))
        flat = [p.reshape(v, (at.size,)) for v in (place, p.cotangent)]
        return p.reshape(b(IndexAdd(0), zeros, *flat), type.shape), None


def _check_starts(op: str, x: TensorType, starts: Sequence[TensorType], first: int) -> None:
    """Raises OpError unless there is one integer scalar per dimension of x."""
    if len(starts) != x.rank:
        raise OpError(
            f"{op} of {x} takes one start per dimension and got {len(starts)}", code="E0207"
        )
    for slot, start in enumerate(starts, first):
        check_kind(op, start, "int", slot)
        check_rank(op, start, 0, slot, "starts")


@dataclass(frozen=True)
class DynamicSlice(Op):
    """The box of `sizes` at a position that is data; operands (x, one integer scalar per dimension)."""

    name: ClassVar[str] = "dynamic_slice"
    pattern: ClassVar[Pattern] = Pattern.INDEX
    arity: ClassVar[int | None] = None
    family: ClassVar[str] = "index"
    checked: ClassVar[bool] = True
    sizes: Shape

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's element type in shape `sizes`. Raises OpError E0206, E0207 or E0213."""
        if not operands:
            raise OpError("dynamic_slice needs an operand")
        x, *starts = operands
        _check_starts(self.name, x, starts, 1)
        check_length(self.name, "sizes", self.sizes, x.rank, x.shape)
        _check_box(self.name, x, self.sizes)
        return (x.with_shape(self.sizes),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The box, copied. Raises IndexError where it leaves x."""
        x, *starts = operands
        return (np.array(x[_box(self.name, x, starts, concrete(self.sizes))], order="C"),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The operand at checked start plus index."""
        at = _starts(e, operands[0], self.sizes, read, 1)
        return read(0, [s + i for s, i in zip(at, index, strict=True)])

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """Zeros with the cotangent where it was cut from."""
        x, *starts = p.operands
        zeros = p.zeros(p.b.type_of(x))
        return p.b(DynamicUpdateSlice(), zeros, p.cotangent, *starts), *(None for _ in starts)


@dataclass(frozen=True)
class DynamicUpdateSlice(Op):
    """x with the box at a position that is data replaced; operands (x, update, one integer scalar per dimension)."""

    name: ClassVar[str] = "dynamic_update_slice"
    pattern: ClassVar[Pattern] = Pattern.INDEX
    arity: ClassVar[int | None] = None
    family: ClassVar[str] = "index"
    checked: ClassVar[bool] = True

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's type. Raises OpError E0205, E0206, E0207 or E0213."""
        if len(operands) < 2:
            raise OpError("dynamic_update_slice needs a tensor and an update")
        x, update, *starts = operands
        if update.dtype is not x.dtype:
            raise OpError(
                f"dynamic_update_slice of {x} by {update}: element types differ",
                operand=1,
                code="E0206",
            )
        check_rank(self.name, update, x.rank, 1, "an update")
        _check_starts(self.name, x, starts, 2)
        _check_box(self.name, x, update.shape)
        return (x,)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """A changed copy. Raises IndexError where the update leaves x."""
        x, update, *starts = operands
        out = np.array(x, order="C")
        out[_box(self.name, x, starts, update.shape)] = update
        return (out,)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The update where the index is inside of the box, else x."""
        x, update = operands[:2]
        at = _starts(e, x, update.shape, read, 2)
        source = [i - s for i, s in zip(index, at, strict=True)]
        inside: Expr = e.constant(True, DType.BOOL)
        for i, d in zip(source, update.shape, strict=True):
            inside = e.binary("and", inside, e.compare("ge", i, e.dim(0)))
            inside = e.binary("and", inside, e.compare("lt", i, e.dim(d)))
        return e.guarded(inside, lambda: read(1, source), read(0, index))

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent without the box, and the box."""
        _, update, *starts = p.operands
        type = p.b.type_of(update)
        rest = p.b(self, p.cotangent, p.zeros(type), *starts)
        box = p.b(DynamicSlice(type.shape), p.cotangent, *starts)
        return rest, box, *(None for _ in starts)


def _check_box(op: str, x: TensorType, sizes: Shape) -> None:
    """Raises OpError E0213 unless the box fits in x."""
    for size, d in zip(sizes, x.shape, strict=True):
        room = d - size
        if (isinstance(size, int) and size < 0) or (isinstance(room, int) and room < 0):
            raise OpError(
                f"{op}: a box of {show(sizes)} does not fit in {show(x.shape)}",
                operand=0,
                code="E0213",
            )


def _box(op: str, x: Array, starts: Sequence[Array], sizes: Sequence[int]) -> tuple[slice, ...]:
    box = []
    for start, size, d in zip(starts, sizes, x.shape, strict=True):
        at = int(start)
        if not 0 <= at <= d - size:
            raise IndexError(f"{op}: start {at} is not in 0..{d - size}")
        box.append(slice(at, at + size))
    return tuple(box)


def _starts(e: Emitter, x: TensorType, sizes: Shape, read: Read, first: int) -> list[Expr]:
    return [
        e.checked_index(e.cast(read(slot, []), DType.I64), d - size + 1)
        for slot, (d, size) in enumerate(zip(x.shape, sizes, strict=True), first)
    ]


@dataclass(frozen=True)
class IndexAdd(Op):
    """x plus rows of updates at positions along `axis`; operands (x, indices [n], updates).

    updates has x's shape with n in place of the axis. Repeated positions add up (torch.index_add). Float sums are
    accumulated in f64 in NumPy.
    """

    name: ClassVar[str] = "index_add"
    pattern: ClassVar[Pattern] = Pattern.OPAQUE
    arity: ClassVar[int | None] = 3
    family: ClassVar[str] = "index"
    checked: ClassVar[bool] = True
    axis: int

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's type. Raises OpError E0202, E0205, E0206 or E0211."""
        x, indices, updates = operands
        check_kind(self.name, x, "number", 0)
        check_axis(self.name, self.axis, x.rank, x.shape, 0)
        check_kind(self.name, indices, "int", 1)
        check_rank(self.name, indices, 1, 1, "indices")
        shape = x.shape[: self.axis] + indices.shape + x.shape[self.axis + 1 :]
        if updates.shape != shape:
            raise OpError(
                f"index_add to {x} along axis {self.axis} by {indices} takes updates of "
                f"{show(shape)} and got {updates}",
                operand=2,
                code="E0202",
            )
        if updates.dtype is not x.dtype:
            raise OpError(
                f"index_add to {x} got updates {updates}: element types differ",
                operand=2,
                code="E0206",
            )
        return (x,)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """An unbuffered sum. Raises IndexError."""
        x, indices, updates = operands
        at = _in_range(self.name, indices, x.shape[self.axis])
        out = np.array(as_f64(x))
        with np.errstate(all="ignore"):
            np.add.at(np.moveaxis(out, self.axis, 0), at, np.moveaxis(updates, self.axis, 0))
        return (rounded(out, x),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """x plus a sum over all updates of those that go here: correct everywhere, quick for few updates."""
        x, indices, _ = operands
        work = working(x.dtype)

        def wide(value: Expr) -> Expr:
            return value if work is x.dtype else e.cast(value, work)

        def body(k: Sequence[Expr]) -> Expr:
            at = e.checked_index(e.cast(read(1, k), DType.I64), x.shape[self.axis])
            here = e.compare("eq", at, index[self.axis])
            source = [*index[: self.axis], k[0], *index[self.axis + 1 :]]
            return e.guarded(here, lambda: wide(read(2, source)), e.constant(0, work))

        total = e.reduce("sum", [indices.shape[0]], body, work)
        value = e.binary("add", wide(read(0, index)), total)
        return value if work is x.dtype else e.cast(value, x.dtype)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """One per element of updates."""
        return operands[2].size

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """None: the indices are no tensor of x's rank."""
        return None

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent, and its rows at the positions."""
        return p.cotangent, None, p.b(Take(self.axis), p.cotangent, p.operands[1])


@dataclass(frozen=True)
class ArgSort(Op):
    """The i64 positions that sort x along `axis`: stable, NaN counting as the largest (torch.argsort(stable=True))."""

    name: ClassVar[str] = "arg_sort"
    pattern: ClassVar[Pattern] = Pattern.OPAQUE
    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "index"
    axis: int
    descending: bool = False

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """i64 of x's shape. Raises OpError E0206 (bool) or E0211."""
        (x,) = operands
        check_kind(self.name, x, "number", 0)
        check_axis(self.name, self.axis, x.rank, x.shape, 0)
        return (x.with_dtype(DType.I64),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's stable argsort; descending sorts the mirrored axis, so that ties keep their order."""
        x = as_f64(operands[0])
        if not self.descending:
            return (np.argsort(x, axis=self.axis, kind="stable").astype(np.int64),)
        mirrored = np.argsort(np.flip(x, self.axis), axis=self.axis, kind="stable")
        order = x.shape[self.axis] - 1 - np.flip(mirrored, self.axis)
        return (order.astype(np.int64),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """n log2 n comparisons per row of a known length n; one per element otherwise."""
        size = operands[0].shape[self.axis]
        steps = max(1, math.ceil(math.log2(size))) if isinstance(size, int) and size > 1 else 1
        return operands[0].size * steps

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same op along the axis the transpose brought here."""
        return ArgSort(permutation[self.axis], self.descending), permutation
