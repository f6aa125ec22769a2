"""Ops that only move elements. All of them are pure index maps; results never alias their operands.

Longer than most: six ops that share the arithmetic of shapes and are read together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape, floordiv
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read, Stacked
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.errors import (
    check_axes,
    check_axis,
    check_length,
    check_positive,
    check_same_dtype,
    plural,
    show,
)
from graphc.ops.source import Constant


def concrete(shape: Shape) -> tuple[int, ...]:
    """A shape without named dims as integers. Raises ValueError when a name is left."""
    sizes = tuple(d for d in shape if isinstance(d, int))
    if len(sizes) != len(shape):
        raise ValueError(f"{show(shape)} still has named dims; substitute them first")
    return sizes


def inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes one."""
    out = [0] * len(permutation)
    for i, p in enumerate(permutation):
        out[p] = i
    return tuple(out)


class Shaping(Op):
    """Base of the ops that move elements."""

    pattern: ClassVar[Pattern] = Pattern.INDEX
    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "shape"


@dataclass(frozen=True)
class BroadcastInDim(Shaping):
    """Repeats elements: operand dimension i becomes result dimension `dims[i]`, where it must be equal or 1.

    `dims` increases strictly; a transposition is a `Transpose`.
    """

    name: ClassVar[str] = "broadcast_in_dim"
    shape: Shape
    dims: tuple[int, ...]

    @property
    def replicated(self) -> bool:
        """Always: it reads fewer elements than it makes."""
        return True

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The attribute shape. Raises OpError E0202, E0207 or E0211, naming both shapes."""
        (x,) = operands
        check_length(self.name, f"dims {show(self.dims)}", self.dims, x.rank, x.shape)
        check_axes(self.name, self.dims, len(self.shape), self.shape)
        if list(self.dims) != sorted(self.dims):
            raise OpError(f"{self.name}: dims {show(self.dims)} must increase", code="E0211")
        for d, axis in zip(x.shape, self.dims, strict=True):
            if d not in (1, self.shape[axis]):
                raise OpError(
                    f"{show(x.shape)} does not broadcast to {show(self.shape)}: "
                    f"{d} is neither 1 nor {self.shape[axis]}",
                    operand=0,
                    code="E0202",
                )
        return (x.with_shape(self.shape),)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The same, one axis further."""
        return Stacked(BroadcastInDim((length, *self.shape), (0, *(d + 1 for d in self.dims))))

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The repeated elements, in memory of their own."""
        (x,) = operands
        shape = concrete(self.shape)
        aligned = [1] * len(shape)
        for d, axis in zip(x.shape, self.dims, strict=True):
            aligned[axis] = d
        return (np.broadcast_to(x.reshape(aligned), shape).copy(),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The operand at the mapped dimensions, 0 where it is repeated."""
        (x,) = operands
        source = [
            index[axis] if d == self.shape[axis] else e.dim(0)
            for d, axis in zip(x.shape, self.dims, strict=True)
        ]
        return read(0, source)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent, summed over what was repeated."""
        shape = p.b.type_of(p.operands[0]).shape
        kept = {a for d, a in zip(shape, self.dims, strict=True) if d == self.shape[a]}
        repeated = [a for a in range(len(self.shape)) if a not in kept]
        return (p.reshape(p.sum(p.cotangent, repeated), shape),)


def permute_broadcast(op: BroadcastInDim, permutation: tuple[int, ...]) -> BroadcastInDim | None:
    """`transpose(op(x), permutation)` as one broadcast of x; None when x itself would be transposed."""
    where = inverse(permutation)
    dims = tuple(where[axis] for axis in op.dims)
    if list(dims) != sorted(dims):
        return None
    return BroadcastInDim(tuple(op.shape[p] for p in permutation), dims)


@dataclass(frozen=True)
class Transpose(Shaping):
    """Reorders dimensions: result dimension i is operand dimension `permutation[i]` (NumPy's transpose)."""

    name: ClassVar[str] = "transpose"
    permutation: tuple[int, ...]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The permuted shape. Raises OpError E0211 unless it is a permutation of the axes."""
        (x,) = operands
        if sorted(self.permutation) != list(range(x.rank)):
            raise OpError(
                f"{show(self.permutation)} is no permutation of the "
                f"{plural(x.rank, 'dimension')} of {show(x.shape)}",
                code="E0211",
                help=f"name each of 0 to {x.rank - 1} once" if x.rank else None,
            )
        return (x.with_shape(tuple(x.shape[p] for p in self.permutation)),)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The same of the axes behind the first."""
        return Stacked(Transpose((0, *(p + 1 for p in self.permutation))))

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's transpose, copied to row-major order."""
        return (np.array(operands[0].transpose(self.permutation), order="C"),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The operand at the index put back in order."""
        return read(0, [index[i] for i in inverse(self.permutation)])

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent, put back in order."""
        return (p.b(Transpose(inverse(self.permutation)), p.cotangent),)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """A transpose of a transpose is one transpose of x: nothing is left behind it."""
        whole = tuple(permutation[p] for p in self.permutation)
        return Transpose(whole), tuple(range(len(whole)))

    @property
    def placeable(self) -> bool:
        """Always: it is a bijection."""
        return True

    def place(self, index: Sequence[Expr]) -> tuple[Expr, ...]:
        """The index, reordered."""
        return tuple(index[p] for p in self.permutation)


@dataclass(frozen=True)
class Reverse(Shaping):
    """Runs the elements along `axes` backwards."""

    name: ClassVar[str] = "reverse"
    axes: tuple[int, ...]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The operand's type. Raises OpError E0211."""
        check_axes(self.name, self.axes, operands[0].rank, operands[0].shape)
        return (operands[0],)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The same axes, one further."""
        return Stacked(Reverse(tuple(a + 1 for a in self.axes)))

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's flip, copied."""
        return (np.flip(operands[0], self.axes).copy(),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The operand at the mirrored index."""
        shape = operands[0].shape
        return read(
            0,
            [e.dim(shape[a] - 1) - i if a in self.axes else i for a, i in enumerate(index)],
        )

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent, reversed."""
        return (p.b(self, p.cotangent),)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same reversal of the axes the transpose brought here."""
        return Reverse(tuple(sorted(permutation[a] for a in self.axes))), permutation


@dataclass(frozen=True)
class Slice(Shaping):
    """Every `strides`-th element from `start` up to but without `limit`; strides are positive."""

    name: ClassVar[str] = "slice"
    start: Shape
    limit: Shape
    strides: tuple[int, ...]

    @property
    def replicated(self) -> bool:
        """Always: it is another way to read what is there."""
        return True

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """ceil((limit - start) / stride) elements per dimension. Raises OpError E0207 or E0213."""
        (x,) = operands
        for what in ("start", "limit", "strides"):
            check_length(self.name, what, getattr(self, what), x.rank, x.shape)
        check_positive(self.name, "strides", self.strides)
        for axis, (d, lo, hi) in enumerate(zip(x.shape, self.start, self.limit, strict=True)):
            for below, above in ((0, lo), (lo, hi), (hi, d)):
                gap = above - below
                if isinstance(gap, int) and gap < 0:
                    raise OpError(
                        f"slice {lo}:{hi} of axis {axis} leaves {show(x.shape)}",
                        operand=0,
                        code="E0213",
                        help=f"axis {axis} has {d} elements",
                    )
        shape = tuple(
            floordiv(hi - lo + (s - 1), s)
            for lo, hi, s in zip(self.start, self.limit, self.strides, strict=True)
        )
        return (x.with_shape(shape),)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """All of the first axis."""
        start, limit = (0, *self.start), (length, *self.limit)
        return Stacked(Slice(start, limit, (1, *self.strides)))

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's slice, copied. Raises IndexError when it leaves the array."""
        (x,) = operands
        start, limit = concrete(self.start), concrete(self.limit)
        for d, lo, hi in zip(x.shape, start, limit, strict=True):
            if not 0 <= lo <= hi <= d:
                raise IndexError(f"slice {lo}:{hi} leaves a dimension of {d}")
        boxes = zip(start, limit, self.strides, strict=True)
        return (np.array(x[tuple(slice(*box) for box in boxes)], order="C"),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The operand at `start + index * stride`."""
        source = [
            (i if s == 1 else i * s) if lo == 0 else (i if s == 1 else i * s) + e.dim(lo)
            for i, lo, s in zip(index, self.start, self.strides, strict=True)
        ]
        return read(0, source)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """Zeros with the cotangent where it was cut from."""
        shape = p.b.type_of(p.operands[0]).shape
        return (embed(p.b, p.cotangent, shape, self.start, self.strides),)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same slices, of the axes the transpose brought here."""
        back = inverse(permutation)
        return (
            Slice(
                tuple(self.start[i] for i in back),
                tuple(self.limit[i] for i in back),
                tuple(self.strides[i] for i in back),
            ),
            permutation,
        )


@dataclass(frozen=True)
class Pad(Shaping):
    """Adds `value` before (`low`), after (`high`) and between (`interior`) elements; negative low/high crop.

    Interior elements go between neighbours first, then low and high apply (StableHLO).
    """

    name: ClassVar[str] = "pad"
    low: tuple[int, ...]
    high: tuple[int, ...]
    interior: tuple[int, ...]
    value: float | int | bool = 0.0

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The padded shape. Raises OpError E0207 for bad attributes, E0213 when more than all is cropped."""
        (x,) = operands
        for what in ("low", "high", "interior"):
            check_length(self.name, what, getattr(self, what), x.rank, x.shape)
        if any(i < 0 for i in self.interior):
            raise OpError(f"pad: interior {show(self.interior)} is negative", code="E0207")
        shape: list[DimLike] = []
        for d, lo, hi, between in zip(x.shape, self.low, self.high, self.interior, strict=True):
            spread = d if between == 0 or d == 0 else (d - 1) * (between + 1) + 1
            size = spread + (lo + hi)
            if isinstance(size, int) and size < 0:
                raise OpError(
                    f"pad: low {show(self.low)} and high {show(self.high)} crop more than "
                    f"there is of {show(x.shape)}",
                    operand=0,
                    code="E0213",
                )
            shape.append(size)
        return (x.with_shape(tuple(shape)),)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """Nothing around the first axis."""
        return Stacked(Pad((0, *self.low), (0, *self.high), (0, *self.interior), self.value))

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """A filled array with the operand written into it."""
        (x,) = operands
        spread = [
            d if between == 0 or d == 0 else (d - 1) * (between + 1) + 1
            for d, between in zip(x.shape, self.interior, strict=True)
        ]
        grown = [
            s + max(lo, 0) + max(hi, 0)
            for s, lo, hi in zip(spread, self.low, self.high, strict=True)
        ]
        out = np.full(grown, self.value, x.dtype)
        boxes = zip(spread, self.low, self.interior, strict=True)
        out[tuple(slice(max(lo, 0), max(lo, 0) + s, b + 1) for s, lo, b in boxes)] = x
        crop = tuple(
            slice(max(-lo, 0), max(n - max(-hi, 0), 0))
            for n, lo, hi in zip(grown, self.low, self.high, strict=True)
        )
        return (np.array(out[crop], order="C"),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The operand where the index meets an element, else the value; memory outside is never read."""
        (x,) = operands
        source: list[Expr] = []
        inside: Expr = None
        rows = zip(index, x.shape, self.low, self.high, self.interior, strict=True)
        for i, d, lo, hi, between in rows:
            position, checks = (i - lo if lo else i), []
            if lo > 0:
                checks.append(e.compare("ge", position, e.dim(0)))
            if between:
                checks.append(e.compare("eq", position % (between + 1), e.dim(0)))
                position = position // (between + 1)
            if hi > 0:
                checks.append(e.compare("lt", position, e.dim(d)))
            for check in checks:
                inside = check if inside is None else e.binary("and", inside, check)
            source.append(position)
        if inside is None:
            return read(0, source)
        return e.guarded(inside, lambda: read(0, source), e.constant(self.value, x.dtype))

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """What lies where elements of x went; 0 for those that were cropped."""
        rank = len(self.low)
        undo = Pad(tuple(-lo for lo in self.low), tuple(-hi for hi in self.high), (0,) * rank, 0.0)
        spread = p.b(undo, p.cotangent)
        if not any(self.interior):
            return (spread,)
        strides = tuple(between + 1 for between in self.interior)
        return (p.b(Slice((0,) * rank, p.b.type_of(spread).shape, strides), spread),)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same padding, of the axes the transpose brought here."""
        back = inverse(permutation)
        low, high, interior = (
            tuple(values[i] for i in back) for values in (self.low, self.high, self.interior)
        )
        return Pad(low, high, interior, self.value), permutation

    @property
    def placeable(self) -> bool:
        """When it only adds a border; whoever stores through it fills the border too."""
        return min((*self.low, *self.high, 0)) >= 0 and not any(self.interior)

    def place(self, index: Sequence[Expr]) -> tuple[Expr, ...]:
        """The index, shifted by `low`."""
        return tuple(i + lo if lo else i for i, lo in zip(index, self.low, strict=True))


def embed(b: GraphBuilder, x: Value, shape: Shape, start: Shape, strides: Sequence[int]) -> Value:
    """Zeros of a shape with x at `start`, its elements `strides` apart: the transpose of `Slice`.

    Named dims are no attribute of `Pad`: on such sides zeros are concatenated.
    """
    type = b.type_of(x)
    if 0 in type.shape:
        return _zeros(b, type.with_shape(shape))
    low, high, sides = [], [], []
    for axis, (n, size, lo, s) in enumerate(zip(type.shape, shape, start, strides, strict=True)):
        hi = size - lo - ((n - 1) * s + 1)
        low.append(lo if isinstance(lo, int) else 0)
        high.append(hi if isinstance(hi, int) else 0)
        sides += [
            (axis, before, d) for before, d in ((True, lo), (False, hi)) if not isinstance(d, int)
        ]
    interior = tuple(s - 1 for s in strides)
    if any(low) or any(high) or any(interior):
        x = b(Pad(tuple(low), tuple(high), interior, 0.0), x)
    for axis, before, d in sides:
        now = b.type_of(x)
        zeros = _zeros(b, now.with_shape((*now.shape[:axis], d, *now.shape[axis + 1 :])))
        x = b(Concatenate(axis), *((zeros, x) if before else (x, zeros)))
    return x


def _zeros(b: GraphBuilder, type: TensorType) -> Value:
    return b(BroadcastInDim(type.shape, ()), b(Constant.of(np.zeros((), type.dtype.numpy))))


@dataclass(frozen=True)
class Concatenate(Shaping):
    """Operands one after the other along `axis`."""

    name: ClassVar[str] = "concatenate"
    arity: ClassVar[int | None] = None
    axis: int

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The axis' sizes added up. Raises OpError E0201, E0205, E0206, E0211 or E0212."""
        if not operands:
            raise OpError("concatenate needs at least one operand")
        first = operands[0]
        check_axis(self.name, self.axis, first.rank, first.shape)
        check_same_dtype(self.name, operands)
        total: DimLike = first.shape[self.axis]
        for slot, other in enumerate(operands[1:], 1):
            if other.rank != first.rank:
                raise OpError(
                    f"concatenate got {first} and {other}: numbers of dimensions differ",
                    operand=slot,
                    code="E0205",
                )
            for axis, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)):
                if axis != self.axis and a != b:
                    raise OpError(
                        f"concatenate along axis {self.axis} got {first} and {other}, "
                        f"which differ in axis {axis}",
                        operand=slot,
                        code="E0212",
                    )
            total = total + other.shape[self.axis]
        shape = (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])
        return (first.with_shape(shape),)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The same, one axis further."""
        return Stacked(Concatenate(self.axis + 1), spread=True)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's concatenate."""
        return (np.concatenate(operands, self.axis),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The part that holds the index; the others are not read."""
        ends: list[DimLike] = []
        total: DimLike = 0
        for t in operands:
            total = total + t.shape[self.axis]
            ends.append(total)
        i = index[self.axis]

        def part(slot: int) -> Expr:
            shift = ends[slot - 1] if slot else 0
            at = i if shift == 0 else i - e.dim(shift)
            return read(slot, [*index[: self.axis], at, *index[self.axis + 1 :]])

        def element(slot: int) -> Expr:
            if slot == len(operands) - 1:
                return part(slot)
            here = e.compare("lt", i, e.dim(ends[slot]))
            there = e.compare("ge", i, e.dim(ends[slot]))
            zero = e.constant(0, operands[0].dtype)
            rest = e.guarded(there, lambda: element(slot + 1), zero)
            return e.guarded(here, lambda: part(slot), rest)

        return element(0)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """Each part's slice of the cotangent."""
        whole = p.b.type_of(p.cotangent).shape
        parts: list[Value | None] = []
        at: DimLike = 0
        for operand in p.operands:
            start, limit = [0] * len(whole), list(whole)
            end = at + p.b.type_of(operand).shape[self.axis]
            first = (*start[: self.axis], at, *start[self.axis + 1 :])
            limit[self.axis] = end
            parts.append(p.b(Slice(first, tuple(limit), (1,) * len(whole)), p.cotangent))
            at = end
        return tuple(parts)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same op along the axis the transpose brought here."""
        return Concatenate(permutation[self.axis]), permutation
