"""The gradient of max pooling, channels last, in two launches (`gradient.cuh`).

The first notes which tap of each window is its first maximum, in scratch memory. The second has the elements of x, adds
up the cotangents of those windows around one that have noted it, and evaluates what follows. Nothing is atomic, and
sums are in the order of the windows: same input, same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from graphc.ir.dim import Dim, DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.lowering.cuda.emit import (
    VECTOR_BYTES,
    Array,
    Expr,
    Memory,
    call,
    cast,
    dtype_of,
    i64,
    named,
    pure,
    when,
)
from graphc.lowering.cuda.emitter import CudaEmitter, Run, divides
from graphc.lowering.cuda.epilogue import Epilogue, border
from graphc.lowering.cuda.io import Kernel, KernelIO, Setting, Stage
from graphc.lowering.generic.index import Space, unflatten
from graphc.lowering.generic.operands import Read, in_memory
from graphc.lowering.generic.strides import strides_of
from graphc.ops import Fusion, MaxPoolGradient

__all__ = ["select_pooling_gradient"]

_THREADS = 256
_DIMENSIONS = 3
_NOTES = ((255, 1, "unsigned char"), (65535, 2, "unsigned short"))
"""For windows of fewer taps: bytes and C type of a tap's number. The largest number stands for no tap."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Pool:
    """What a fusion of a `max_pool_gradient` computes.

    Attributes:
        x, given: where the operands lie: [N, *spatial, C] and [N, *windows, C].
        note: C type of the number of a tap.
        note_bytes: its bytes.
        run: neighbouring channels of a thread.
    """

    body: Graph
    root: Node
    op: MaxPoolGradient
    x: Read
    given: Read
    note: str
    note_bytes: int
    run: int

    @property
    def shapes(self) -> tuple[tuple[DimLike, ...], tuple[DimLike, ...]]:
        """Of x and of what is pooled."""
        x, given = (self.body.type_of(v).shape for v in self.root.operands)
        return x, given

    def types(self, read: Read) -> str:
        """The template arguments of a kernel that reads an operand."""
        op = self.op
        rows = list(zip(op.window, op.strides, op.dilation, strict=True))
        taps = ", ".join(f"graphc_taps<{k}, {s}, {d}>" for k, s, d in _three(rows, (1, 1, 1)))
        stored = self.body.inputs[read[0]].types[0].dtype
        return f"graphc_stored_{stored}, {self.note}, {self.run}, graphc_pool<{taps}>"


def select_pooling_gradient(fusion: Fusion, root: Node, setting: Setting) -> Kernel | None:
    """Kernels for a fusion whose root is a `max_pool_gradient`, or None for other layouts and huge windows."""
    op, body = root.op, fusion.body
    assert isinstance(op, MaxPoolGradient)
    x, given = (in_memory(body, value) for value in root.operands)
    taps = math.prod(op.window)
    notes = [(bytes, name) for most, bytes, name in _NOTES if taps < most]
    if x is None or given is None or not notes:
        return None
    if not op.channels_last or len(op.window) > _DIMENSIONS:
        return None
    bytes, name = notes[0]
    run = _run(body, (x, given), root.types[0].shape[-1], setting.alignment)
    pool = _Pool(body, root, op, x, given, name, bytes, run)
    source, pooled = pool.shapes
    find = Stage(lambda io: _find(pool, io), _grid(pooled, run), _THREADS)
    gather = Stage(lambda io: _gather(pool, io), _grid(source, run), _THREADS)
    scratch = product(pooled) * bytes
    return Kernel("pool gradient", (*border(body, root), find, gather), scratch)


def _run(body: Graph, reads: Sequence[Read], channels: DimLike, alignment: int) -> int:
    """Neighbouring channels that one instruction moves of each operand."""

    def together(run: int, read: Read) -> bool:
        slot, (*outer, along) = read
        bytes = run * body.inputs[slot].types[0].dtype.bytes
        whole = all(divides(run, s) for s in (*outer, channels))
        return along == 1 and whole and bytes <= min(VECTOR_BYTES, alignment)

    return next((r for r in (8, 4, 2) if all(together(r, read) for read in reads)), 1)


def _grid(shape: Sequence[DimLike], run: int) -> tuple[DimLike, DimLike, DimLike]:
    *outer, channels = shape
    return ((product((*outer, channels // run)) + (_THREADS - 1)) // _THREADS, 1, 1)


@contextmanager
def _own(
    e: CudaEmitter, io: KernelIO, pool: _Pool, shape: tuple[DimLike, ...]
) -> Iterator[list[DimLike]]:
    """The index of the thread's first element in a tensor channels last, the channel in runs; threads lie as x does."""
    n, *spatial, channels = (*shape[:-1], shape[-1] // pool.run)
    last = pool.x[1][-1] == 1
    sizes = [n, *spatial, channels] if last else [n, channels, *spatial]
    total, (blocks, _, _) = product(sizes), _grid(shape, pool.run)
    block, thread = (
        e.bound(io.thread.block[0], 0, blocks - 1),
        e.bound(io.thread.index, 0, _THREADS - 1),
    )
    place = named(e.expr(block * _THREADS + thread))
    with when(place < cast(e.expr(total), dtype_of(place))), e.scope():
        position = e.bound(place, 0, total - 1)
        at = [
            e.bound(e.expr(i), 0, d - 1)
            for i, d in zip(unflatten(position, sizes), sizes, strict=True)
        ]
        yield at if last else [at[0], *at[2:], at[1]]


def _find(pool: _Pool, io: KernelIO) -> None:
    """Notes the first maximum of a window."""
    e, op = CudaEmitter(Space(pool.body.dims), io), pool.op
    source, pooled = pool.shapes
    assert io.scratch is not None
    with _own(e, io, pool, pooled) as at:
        image, *window, group = at
        lows = [low for low, _ in op.padding]
        first = [o * s - low for o, s, low in zip(window, op.strides, lows, strict=True)]
        call(
            f"graphc_note_maxima<{pool.types(pool.x)}>",
            _address(e, pool, io.scratch, pool.note_bytes, strides_of(pooled), at),
            _volume(e, pool, io.operands[pool.x[0]], 1, pool.x[1], source, (image, group)),
            *_three([_int(e, i) for i in first], _int(e, 0)),
        )


def _gather(pool: _Pool, io: KernelIO) -> None:
    """Adds up what the windows around an element give, and stores what follows."""
    epilogue = Epilogue(pool.body, pool.root, io)
    e, op, run = epilogue.e, pool.op, pool.run
    source, pooled = pool.shapes
    slot, strides = pool.given
    (type,) = pool.root.types
    assert io.scratch is not None
    with _own(e, io, pool, source) as at:
        image, *place, group = at
        behind = [_int(e, i + low) for i, (low, _) in zip(place, op.padding, strict=True)]
        sums = Array(run, DType.F64 if type.dtype is DType.F64 else DType.F32)
        own = image, group
        call(
            f"graphc_add_noted<{pool.types(pool.given)}>",
            sums.address(e.expr(0)),
            _volume(e, pool, io.operands[slot], 1, strides, pooled, own),
            _volume(e, pool, io.scratch, pool.note_bytes, strides_of(pooled), pooled, own),
            *_three(behind, _int(e, 0)),
        )
        places = [(image, *place, group * run + j) for j in range(run)]
        values = [named(sums.load(e.expr(j))) for j in range(run)]
        neighbours = Run(group.names[0], run) if isinstance(group, Dim) and run > 1 else None
        with e.neighbours(neighbours):
            epilogue.store_run(places, values)


def _address(
    e: CudaEmitter,
    pool: _Pool,
    memory: Memory,
    scale: int,
    strides: Sequence[DimLike],
    at: Sequence[DimLike],
) -> Expr:
    """Where an element lies whose channel is given in runs; `scale` is what a stride counts in elements of `memory`."""
    *outer, group = at
    place: DimLike = group * pool.run * strides[-1]
    for i, stride in zip(outer, strides, strict=False):
        place = place + i * stride
    return memory.address(i64(e.wide(place * scale)))


def _volume(
    e: CudaEmitter,
    pool: _Pool,
    memory: Memory,
    scale: int,
    strides: Sequence[DimLike],
    shape: Sequence[DimLike],
    own: tuple[DimLike, DimLike],
) -> Expr:
    """The thread's image and channels (`own`) of a tensor, as a C++ value."""
    (image, group), (first, *steps, along) = own, strides
    base = _address(e, pool, memory, scale, (first, along), (image, group))
    sizes = [_int(e, d) for d in shape[1:-1]]
    wide = [e.wide(s) for s in steps]
    return pure("graphc_volume", "int32", base, *_three(wide, i64(0)), *_three(sizes, _int(e, 1)))


def _int(e: CudaEmitter, value: DimLike) -> Expr:
    return cast(e.expr(value), "int32")


def _three(values: Sequence[T], fill: T) -> list[T]:
    """Three dimensions, of which the first are none."""
    return [fill] * (_DIMENSIONS - len(values)) + list(values)
