"""Attention on tensor cores, for operands in half precision and masks that lie in memory; see `flash.cuh`."""

from __future__ import annotations

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.lowering.cuda.attention.mask import mask_of
from graphc.lowering.cuda.emit import VECTOR_BYTES, Array, call, cast, const, loop, named, when
from graphc.lowering.cuda.emitter import divides
from graphc.lowering.cuda.epilogue import Epilogue, border
from graphc.lowering.cuda.io import Kernel, KernelIO, Setting, Stage
from graphc.lowering.generic.operands import Read, in_memory, strided
from graphc.ops import Attention, Fusion

__all__ = ["select_flash"]

_QUERIES = 64  # of a block
_THREADS = 128
_PANEL_BYTES = 64 * 128  # 64 rows of 64 elements
_WIDEST = 128
_CHUNK = 8  # elements of 16 bytes


def select_flash(fusion: Fusion, root: Node, setting: Setting) -> Kernel | None:
    """A kernel for a fusion whose root is an `attention`, or None where tensor cores cannot compute it."""
    op, body = root.op, fusion.body
    assert isinstance(op, Attention)
    hidden = [in_memory(body, mask) is None for mask in root.operands[3:]]
    if any(hidden) or setting.alignment != VECTOR_BYTES:
        return None
    read = [strided(body, value) for value in root.operands[:3]]
    stored = {body.inputs[slot].types[0].dtype for slot, _ in read}
    q, _, v = (body.type_of(value).shape for value in root.operands[:3])
    depth, width = q[3], v[3]
    if stored not in ({DType.BF16}, {DType.F16}) or not _fits(depth) or not _fits(width):
        return None
    assert isinstance(depth, int) and isinstance(width, int)
    for _, (*outer, along) in read:
        if along != 1 or not all(divides(_CHUNK, s) for s in outer):
            return None
    (dtype,) = stored
    batch, heads, queries = q[:3]
    grid = ((queries + (_QUERIES - 1)) // _QUERIES, heads, batch)

    def emit(io: KernelIO) -> None:
        _emit(body, root, op, dtype, read, io)

    panels = 3 * (-(-depth // 64)) + 2 * (-(-width // 64))
    stage = Stage(emit, grid, _THREADS, panels * _PANEL_BYTES)
    return Kernel("flash", (*border(body, root), stage))


def _fits(size: DimLike) -> bool:
    return isinstance(size, int) and size % _CHUNK == 0 and 0 < size <= _WIDEST


def _emit(
    body: Graph,
    root: Node,
    op: Attention,
    dtype: DType,
    read: list[Read],
    io: KernelIO,
) -> None:
    epilogue = Epilogue(body, root, io)
    e = epilogue.e
    batch, heads, queries, width = root.types[0].shape
    depth, keys = body.type_of(root.operands[0]).shape[3], body.type_of(root.operands[1]).shape[2]
    assert isinstance(width, int)
    x, y, z = io.thread.block
    block = e.bound(x, 0, (queries + (_QUERIES - 1)) // _QUERIES - 1)
    head, image = e.bound(y, 0, heads - 1), e.bound(z, 0, batch - 1)
    first = block * _QUERIES
    sums = Array(width // 2, DType.F32)

    def start(operand: int, row: DimLike) -> object:
        slot, strides = read[operand]
        place = image * strides[0] + head * strides[1] + row * strides[2]
        return io.operands[slot].address(e.expr(place))

    causal = "true" if op.causal else "false"
    mask = mask_of(e, io, body, next(iter(root.operands[3:]), None), (image, head))
    call(
        f"graphc_attend<graphc_{dtype}, {depth}, {width}, {causal}>",
        sums.address(e.expr(0)),
        *(start(operand, first if operand == 0 else 0) for operand in range(3)),
        *(e.wide(strides[2]) for _, strides in read),
        *(e.wide(size) for size in (first, queries, keys)),
        const(op.scale, "float32"),
        mask,
    )
    thread = e.bound(io.thread.index, 0, _THREADS - 1)
    lane, warp = thread % 32, thread // 32
    row0 = e.bound(e.expr(first + warp * 16 + lane // 4), 0, queries + _QUERIES)
    pair = e.bound(e.expr(lane % 4), 0, 3)
    with loop(2, unroll=True) as h:
        half = e.bound(h, 0, 1)
        place = e.bound(e.expr(row0 + half * 8), 0, queries + 2 * _QUERIES)
        with when(e.expr(place) < cast(e.expr(queries), str(e.expr(place).ty.dtype))), e.scope():
            query = e.bound(e.expr(place), 0, queries - 1)
            with loop(width // 8, unroll=True) as j, e.scope():
                group = e.bound(j, 0, width // 8 - 1)
                column = e.bound(e.expr(group * 4 + pair), 0, width // 2 - 1)
                at = [(image, head, query, column * 2 + v) for v in range(2)]
                found = [named(sums.load(e.expr(group * 4 + half * 2 + v))) for v in range(2)]
                epilogue.store_run(at, found)
