"""Long sums of products shared among blocks: each block sums a part of K and stores it, a second launch adds the parts.

Without it, a result of few tiles leaves most multiprocessors idle: gradients of weights, products of small batches. The
parts are added in order, whatever block was done first: same input, same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.lowering.cuda.emit import (
    PROCESSORS,
    VECTOR_BYTES,
    Array,
    Expr,
    Memory,
    Variable,
    call,
    cast,
    const,
    i64,
    loop,
    named,
    pure,
    select,
    when,
)
from graphc.lowering.cuda.emitter import CudaEmitter, divides
from graphc.lowering.cuda.epilogue import Epilogue
from graphc.lowering.cuda.io import KernelIO, Stage
from graphc.lowering.cuda.products import tiles
from graphc.lowering.cuda.products.tiles import Tile, Units
from graphc.lowering.generic.index import flatten, unflatten

__all__ = ["Cut", "added", "choose", "kept", "part_of"]

_THREADS = 128
_SAVED = 8  # steps of a full tile that the second launch has to save; a guess, not a measurement
_SHORTEST = 4  # steps of a part
_MOST = 64  # parts
_OPEN = 1 << 10  # steps of an open size
_BYTES = 4 << 20  # of parts that are written and read in the time of one step


@dataclass(frozen=True)
class Cut:
    """Tiles of the result, and how many parts K comes in."""

    tile: Tile
    parts: int


def choose(
    m: DimLike, n: DimLike, batch: DimLike, steps: DimLike, units: Units, least: int = 0
) -> Cut:
    """How a product of `steps` steps of K is cut; tiles have at least `least` rows and columns."""
    whole = tiles.choose(m, n, batch, units, least)
    if not all(isinstance(size, int) for size in (m, n, batch)):
        return Cut(whole, 1)
    depth = steps if isinstance(steps, int) else _OPEN
    size = m * n * batch
    assert isinstance(size, int)

    def cost(cut: Cut) -> float:
        blocks = _blocks(cut.tile, m, n, batch) * cut.parts
        waves = -(-blocks // PROCESSORS)
        work = waves * -(-depth // cut.parts) * tiles.cost_of(cut.tile, units)
        return work + (cut.parts > 1) * (_SAVED + cut.parts * size * 8 / _BYTES)

    cuts = [Cut(whole, 1)]
    for tile in tiles.tiles_for(units, least):
        free = PROCESSORS // _blocks(tile, m, n, batch)
        parts = min(free, depth // _SHORTEST, _MOST)
        if parts > 1:
            cuts.append(Cut(tile, parts))
    return min(cuts, key=cost)


def _blocks(tile: Tile, m: DimLike, n: DimLike, batch: DimLike) -> int:
    assert isinstance(m, int) and isinstance(n, int) and isinstance(batch, int)
    return -(-m // tile.m) * -(-n // tile.n) * batch


def part_of(
    e: CudaEmitter, part: DimLike, parts: int, loaders: tuple[Expr, Expr], steps: DimLike
) -> tuple[tuple[Expr, Expr], DimLike]:
    """The loaders of a part, and its steps."""
    each = (steps + (parts - 1)) // parts
    first = named(cast(e.expr(part * each), "int32"))
    left = named(cast(e.expr(steps), "int32") - first)
    most, none = named(cast(e.expr(each), "int32")), const(0, "int32")
    count = select(left < most, select(left < none, none, left), most)
    later = tuple(pure("graphc_from", "int32", loader, first) for loader in loaders)
    return (later[0], later[1]), e.bound(count, 0, each)


def kept(
    e: CudaEmitter, scratch: Memory, root: Node, part: DimLike, at: Sequence[DimLike], value: Expr
) -> None:
    """Stores an element of a part."""
    shape = root.types[0].shape
    place = (part * root.types[0].size + flatten(at, shape)) * 4
    call("graphc_write<float>", scratch.address(i64(e.wide(place))), value)


def added(body: Graph, root: Node, parts: int) -> Stage:
    """The launch that adds the parts, evaluates what follows, and stores."""
    shape, total = root.types[0].shape, root.types[0].size
    run = next(r for r in (4, 2, 1) if divides(r, shape[-1]))
    blocks = (total + (_THREADS * run - 1)) // (_THREADS * run)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(body, root, io)
        e = epilogue.e
        block = e.bound(io.thread.block[0], 0, blocks - 1)
        thread = e.bound(io.thread.index, 0, _THREADS - 1)
        place = e.bound(e.expr(block * _THREADS + thread), 0, blocks * _THREADS - 1)
        with (
            when(e.expr(place) < cast(e.expr(total // run), str(e.expr(place).ty.dtype))),
            e.scope(),
        ):
            group = e.bound(e.expr(place), 0, total // run - 1)
            values = _sums(e, io, group * run, run, total, parts)
            sizes = [*shape[:-1], shape[-1] // run]
            digits = unflatten(group, sizes)
            *outer, last = (
                e.bound(e.expr(i), 0, d - 1) for i, d in zip(digits, sizes, strict=True)
            )
            epilogue.store_run([(*outer, last * run + j) for j in range(run)], values)

    return Stage(emit, (blocks, 1, 1), _THREADS)


def _sums(
    e: CudaEmitter, io: KernelIO, first: DimLike, run: int, total: DimLike, parts: int
) -> list[Expr]:
    """`run` neighbouring elements, the parts added in order."""
    assert io.scratch is not None
    sums = [Variable(const(0.0, "float32")) for _ in range(run)]
    wide = run if divides(run, total) and run * 4 <= VECTOR_BYTES else 1
    with loop(parts) as p, e.scope():
        part = e.bound(p, 0, parts - 1)
        for start in range(0, run, wide):
            found = Array(wide, DType.F32)
            place = (part * total + first + start) * 4
            source = io.scratch.address(i64(e.wide(place)))
            call(f"graphc_copy_{wide * 4}", found.address(const(0, "int32")), source)
            for j in range(wide):
                sums[start + j].set(sums[start + j].get() + found.load(const(j, "int32")))
    return [named(s.get()) for s in sums]
