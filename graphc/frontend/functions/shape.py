"""Functions that move elements: reshape, transpose, join, split, index."""

from __future__ import annotations

from graphc.frontend.kinds import Number
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dim import Dim, DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.types import TensorType
from graphc.ops import (
    ArgSort,
    Concatenate,
    Pad,
    Reverse,
    Slice,
    Take,
    TakeAlongAxis,
    Transpose,
    arith,
)

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Shape")
Sizes = tuple[DimLike, ...]


def axis_of(b: GraphBuilder, x: Value, dim: int, extra: int = 0) -> int:
    """A dimension counted from the start. Raises RejectError (E0211)."""
    rank = b.type_of(x).rank + extra
    if not -rank <= dim < rank:
        raise RejectError(
            f"dimension {dim} is out of range: {b.type_of(x)} has {b.type_of(x).rank} dimensions",
            code="E0211",
            argument="dim",
        )
    return dim % rank


def sliced(b: GraphBuilder, x: Value, axis: int, start: DimLike, stop: DimLike) -> Value:
    """Elements start to stop along one axis."""
    shape = b.type_of(x).shape
    if start == 0 and stop == shape[axis]:
        return x
    starts: list[DimLike] = [0] * len(shape)
    stops = list(shape)
    starts[axis], stops[axis] = start, stop
    return b(Slice(start=tuple(starts), limit=tuple(stops), strides=(1,) * len(shape)), x)


@_add
def reshape(b: GraphBuilder, x: Value, shape: Sizes) -> Value:
    """The same elements in another shape; one size may be -1."""
    return arith.reshape(b, x, solved(b.type_of(x), shape))


def solved(kind: TensorType, shape: Sizes) -> Sizes:
    """A shape with its -1 worked out. Raises RejectError (E0210)."""
    known = product(s for s in shape if s != -1)
    free = [i for i, s in enumerate(shape) if s == -1]
    if any(isinstance(s, int) and s < -1 for s in shape) or len(free) > 1:
        raise RejectError(
            "sizes are numbers of elements, and one at most is -1", code="E0207", argument="shape"
        )
    text = ", ".join(map(str, shape))
    total = kind.size
    if not free:
        if known != total:
            raise RejectError(
                f"[{text}] has {known} elements, and {kind} has {total}",
                code="E0210",
                operand=0,
                argument="shape",
            )
        return shape
    if known == 0 or (rest := total // known) * known != total:
        raise RejectError(
            f"{kind} has {total} elements, which do not fill [{text}] evenly",
            code="E0210",
            operand=0,
            argument="shape",
        )
    return tuple(rest if i == free[0] else s for i, s in enumerate(shape))


@_add
def flatten(b: GraphBuilder, x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """Joins the dimensions `start_dim` to `end_dim` into one."""
    shape = b.type_of(x).shape
    start, end = axis_of(b, x, start_dim), axis_of(b, x, end_dim)
    joined = product(shape[start : end + 1])
    return arith.reshape(b, x, (*shape[:start], joined, *shape[end + 1 :]))


@_add
def permute(b: GraphBuilder, x: Value, dims: tuple[int, ...]) -> Value:
    """The dimensions in another order."""
    order = tuple(axis_of(b, x, d) for d in dims)
    if sorted(order) != list(range(b.type_of(x).rank)):
        raise RejectError(
            f"{list(dims)} is no order of the {b.type_of(x).rank} dimensions of {b.type_of(x)}",
            code="E0211",
            argument="dims",
        )
    return x if order == tuple(range(len(order))) else b(Transpose(permutation=order), x)


@_add
def transpose(b: GraphBuilder, x: Value, dim0: int = -2, dim1: int = -1) -> Value:
    """Swaps two dimensions; the last two where none are given."""
    order = list(range(b.type_of(x).rank))
    i, j = axis_of(b, x, dim0), axis_of(b, x, dim1)
    order[i], order[j] = order[j], order[i]
    return permute(b, x, tuple(order))


@_add
def squeeze(b: GraphBuilder, x: Value, dim: int | None = None) -> Value:
    """Drops a dimension of size 1, or all of them."""
    shape = b.type_of(x).shape
    if dim is None:
        return arith.reshape(b, x, tuple(s for s in shape if s != 1))
    axis = axis_of(b, x, dim)
    if shape[axis] != 1:
        raise RejectError(
            f"dimension {dim} of {b.type_of(x)} has size {shape[axis]}, not 1",
            code="E0210",
            operand=0,
            argument="dim",
        )
    return arith.reshape(b, x, (*shape[:axis], *shape[axis + 1 :]))


@_add
def unsqueeze(b: GraphBuilder, x: Value, dim: int) -> Value:
    """A new dimension of size 1 at `dim`."""
    shape = b.type_of(x).shape
    axis = axis_of(b, x, dim, 1)
    return arith.reshape(b, x, (*shape[:axis], 1, *shape[axis:]))


@_add
def expand(b: GraphBuilder, x: Value, shape: Sizes) -> Value:
    """The tensor repeated along dimensions of size 1 to `shape`; -1 keeps a size."""
    have = b.type_of(x).shape
    lead = len(shape) - len(have)
    sizes = tuple(have[i - lead] if s == -1 and i >= lead else s for i, s in enumerate(shape))
    return arith.broadcast_to(b, x, sizes)


@_add
def concat(b: GraphBuilder, tensors: tuple[Value, ...], dim: int = 0) -> Value:
    """Tensors one after the other along an existing dimension."""
    if not tensors:
        raise RejectError("concat needs at least one tensor", argument="tensors")
    axis = axis_of(b, tensors[0], dim)
    return tensors[0] if len(tensors) == 1 else b(Concatenate(axis=axis), *tensors)


@_add
def stack(b: GraphBuilder, tensors: tuple[Value, ...], dim: int = 0) -> Value:
    """Tensors of one shape along a new dimension."""
    if not tensors:
        raise RejectError("stack needs at least one tensor", argument="tensors")
    axis = axis_of(b, tensors[0], dim, 1)
    return concat(b, tuple(unsqueeze(b, t, axis) for t in tensors), axis)


@_add
def split(
    b: GraphBuilder, x: Value, size: int | tuple[int, ...], dim: int = 0
) -> tuple[Value, ...]:
    """Pieces of `size` elements (the last may be smaller), or of the sizes in a list. Source: `torch.split`."""
    axis = axis_of(b, x, dim)
    total = b.type_of(x).shape[axis]
    if not isinstance(total, int):
        raise RejectError(f"split needs a fixed size, not `{total}`", code="E0216", operand=0)
    if isinstance(size, int):
        if size < 1 or -(-total // size) > 4096:
            raise RejectError(f"pieces of {size} of {total} elements", argument="size")
        sizes = [min(size, total - i) for i in range(0, total, size)]
    else:
        sizes = list(size)
        if sum(sizes) != total or min(sizes, default=0) < 0:
            raise RejectError(
                f"the sizes {sizes} add up to {sum(sizes)}, and dimension {dim} has {total}",
                code="E0213",
                argument="size",
                operand=0,
            )
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(sliced(b, x, axis, end - n, end) for n, end in zip(sizes, ends, strict=True))


@_add
def chunk(b: GraphBuilder, x: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    """`chunks` equal pieces. A named dim can be cut where it divides (`2 * T`)."""
    axis = axis_of(b, x, dim)
    total = b.type_of(x).shape[axis]
    if not 1 <= chunks <= 4096:
        raise RejectError("`chunks` has to be between 1 and 4096", argument="chunks")
    size = total // chunks
    if size * chunks != total:
        raise RejectError(
            f"{total} elements do not divide into {chunks} chunks",
            code="E0213",
            argument="chunks",
            operand=0,
        )
    return tuple(sliced(b, x, axis, size * i, size * (i + 1)) for i in range(chunks))


@_add
def flip(b: GraphBuilder, x: Value, dims: int | tuple[int, ...]) -> Value:
    """Elements in the opposite order along dimensions."""
    each = (dims,) if isinstance(dims, int) else dims
    axes = tuple(sorted({axis_of(b, x, d) for d in each}))
    return b(Reverse(axes=axes), x) if axes else x


@_add
def roll(b: GraphBuilder, x: Value, shifts: int, dim: int) -> Value:
    """Elements moved along a dimension; what leaves at the end enters at the start."""
    axis = axis_of(b, x, dim)
    size = b.type_of(x).shape[axis]
    if not isinstance(size, int):
        raise RejectError(f"roll needs a fixed size, not `{size}`", code="E0216", operand=0)
    cut = (size - shifts) % size if size else 0
    if cut == 0:
        return x
    parts = (sliced(b, x, axis, cut, size), sliced(b, x, axis, 0, cut))
    return b(Concatenate(axis=axis), *parts)


@_add
def repeat(b: GraphBuilder, x: Value, repeats: tuple[int, ...]) -> Value:
    """The tensor repeated along each dimension, as `torch.Tensor.repeat` and `numpy.tile` do."""
    shape = b.type_of(x).shape
    if len(repeats) < len(shape) or any(not 1 <= r <= 2**20 for r in repeats):
        raise RejectError(
            f"`repeats` needs one number per dimension of {b.type_of(x)}, at least 1",
            argument="repeats",
        )
    full = (*([1] * (len(repeats) - len(shape))), *shape)
    spread: list[DimLike] = []
    for r, s in zip(repeats, full, strict=True):
        spread += [r, s]
    ones = arith.reshape(b, x, tuple(v for s in full for v in (1, s)))
    joined = tuple(r * s for r, s in zip(repeats, full, strict=True))
    return arith.reshape(b, arith.broadcast_to(b, ones, tuple(spread)), joined)


@_add
def pad(b: GraphBuilder, x: Value, pad: tuple[int, ...], value: Number = 0.0) -> Value:
    """Pads with a number: `(left, right, top, bottom, ...)`, last dimension first. Negative amounts crop.

    Source: `torch.nn.functional.pad`.
    """
    kind = b.type_of(x)
    if len(pad) % 2 or len(pad) > 2 * kind.rank or isinstance(value, Dim):
        raise RejectError(
            f"`pad` has {len(pad)} numbers; it takes two per dimension of {kind}", argument="pad"
        )
    low, high = [0] * kind.rank, [0] * kind.rank
    for i in range(len(pad) // 2):
        low[kind.rank - 1 - i], high[kind.rank - 1 - i] = pad[2 * i], pad[2 * i + 1]
    if not any(low) and not any(high):
        return x
    fill = float(value) if kind.dtype.is_float else int(value)
    fill = bool(fill) if kind.dtype is DType.BOOL else fill
    return b(Pad(low=tuple(low), high=tuple(high), interior=(0,) * kind.rank, value=fill), x)


@_add
def take(b: GraphBuilder, x: Value, indices: Value, dim: int = 0) -> Value:
    """Slices of `x` along `dim`, by integer indices of any shape. An index out of range is an error at run time."""
    return b(Take(axis=axis_of(b, x, dim)), x, indices)


@_add
def gather(b: GraphBuilder, x: Value, dim: int, index: Value) -> Value:
    """Elements of `x` along `dim`, by an index for each. Source: `torch.gather`."""
    return b(TakeAlongAxis(axis=axis_of(b, x, dim)), x, index)


@_add
def argsort(b: GraphBuilder, x: Value, dim: int = -1, descending: bool = False) -> Value:
    """The indices that sort `x` along `dim`; equal elements keep their order."""
    return b(ArgSort(axis=axis_of(b, x, dim), descending=descending), x)


@_add
def sort(b: GraphBuilder, x: Value, dim: int = -1, descending: bool = False) -> Value:
    """`x` sorted along `dim`."""
    axis = axis_of(b, x, dim)
    return b(TakeAlongAxis(axis=axis), x, b(ArgSort(axis=axis, descending=descending), x))


@_add
def numel(b: GraphBuilder, x: Value) -> DimLike:
    """The number of elements."""
    return b.type_of(x).size


@_add
def pixel_shuffle(b: GraphBuilder, x: Value, upscale_factor: int) -> Value:
    """`[N, C * r * r, H, W]` to `[N, C, H * r, W * r]`."""
    kind = b.type_of(x)
    r = upscale_factor
    if kind.rank != 4 or r < 1:
        raise RejectError(
            f"pixel_shuffle needs [N, C, H, W] and gets {kind}", code="E0205", operand=0
        )
    n, c, h, w = kind.shape
    if (c // (r * r)) * (r * r) != c:
        raise RejectError(
            f"pixel_shuffle needs a multiple of {r * r} channels, not {c}", code="E0209", operand=0
        )
    split_up = arith.reshape(b, x, (n, c // (r * r), r, r, h, w))
    return arith.reshape(
        b, permute(b, split_up, (0, 1, 4, 2, 5, 3)), (n, c // (r * r), h * r, w * r)
    )
