"""Matrix products on AMX tiles: ``C[batch..., M, N] = A[batch..., M, K] @ B`` of bfloat16, sums in float32.

A is read where it lies, its rows contiguous along K. B is packed when the module is built
(``amx.pack_tiles``), or brought into the same order in scratch memory by each task, for its columns.
A split product takes every number as two bfloat16, high and low, and multiplies the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    View,
    bind,
    branch,
    ceil_div,
    floor_div,
    fused_loop,
    i64,
    lanes_of,
    loop,
    prefetch,
    product,
    shuffle,
    static,
    vector_pieces,
    when,
    worth_threads,
)
from graphc.lowering.cpu.families.dense.spec import scratch_slots
from graphc.lowering.cpu.families.tile.amx import (
    COLUMNS,
    Blocks,
    Shape,
    Tiles,
    chunk_depth,
)
from graphc.lowering.cpu.generic.transpose import interleaved

__all__ = ["TileProduct", "emit_tile_product", "tile_scratch"]

# Weights up to this size stay in a core's second-level cache while it walks over rows.
_RESIDENT_BYTES = 1_000_000
# A panel up to this size can be fetched while another is used, without either being pushed out.
_PANEL_BYTES = 500_000
_LINE_WORDS = 32  # of a cache line
_LEAST_DEPTH = 8  # below, most of a tile is empty


@dataclass(frozen=True)
class TileProduct:
    """What is multiplied.

    Attributes:
        m, n, k: extents; ``n`` and ``k`` are static.
        batch: leading extents that all three tensors share.
        b: ``"packed"``, or how a run-time B lies: ``"rows"`` ``[K, N]`` or ``"columns"`` ``[N, K]``.
        split: whether A and B are pairs.
    """

    m: Extent
    n: int
    k: int
    batch: tuple[Extent, ...] = ()
    b: str = "packed"
    split: bool = False

    @property
    def fits(self) -> bool:
        """Whether K divides into steps of which tiles are not mostly empty."""
        return chunk_depth(self.k) >= min(_LEAST_DEPTH, self.k) > 0

    @property
    def depth(self) -> int:
        """Elements of K of one step."""
        return chunk_depth(self.k)

    @property
    def shape(self) -> Shape:
        """Tiles of a block: few rows take more columns at once."""
        m = static(self.m)
        return Shape(1, 4) if m is not None and m <= 16 else Shape(2, 2)

    @property
    def panels(self) -> int:
        """Blocks along N."""
        return -(-self.n // self.shape.columns)

    @property
    def parts(self) -> int:
        """Bfloat16 numbers that stand for one."""
        return 2 if self.split else 1

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two, as if at a tenth of the price: this is
        what decides about threads."""
        return product((*self.batch, self.m, self.n, self.k, 2))


def tile_scratch(spec: TileProduct) -> Extent:
    """Bytes of scratch memory for :func:`emit_tile_product`."""
    if spec.b == "packed":
        return 0
    slots = scratch_slots(product((*spec.batch, spec.panels)))
    return product((slots, spec.k, spec.shape.columns, spec.parts, 2))


def emit_tile_product(
    spec: TileProduct,
    a: Sequence[View],
    b: Sequence[View],
    finish: Finish,
    *,
    scratch: View | None = None,
) -> None:
    """Emits the loops of a product into the open kernel.

    Args:
        spec: what is multiplied.
        a: the parts of A, indexed ``(*batch, m, k)``, with stride 1 along k.
        b: one view of packed words, indexed ``(*batch, word)``, or the parts of a run-time B, indexed
            ``(*batch, k, n)`` or ``(*batch, n, k)`` with stride 1 along the last.
        finish: receives results at index ``(*batch, m, n)``.
        scratch: 16-bit words, :func:`tile_scratch` bytes of them.
    """
    if spec.b == "packed":
        _emit_packed(spec, a, b[0], finish)
    else:
        assert scratch is not None
        _emit_copied(spec, a, b, finish, scratch)


def _emit_packed(spec: TileProduct, a: Sequence[View], b: View, finish: Finish) -> None:
    """Tasks are blocks of rows (times all columns) while B stays near, else blocks of columns."""
    blocks = Blocks(spec.m, spec.shape.rows)
    weights = spec.n * spec.k * 2 * spec.parts
    number = static(blocks.number)
    rows_first = weights <= _RESIDENT_BYTES and (number is None or number >= 4)
    per_task = 1 if rows_first else 16
    chunks = ceil_div(blocks.number, per_task)
    outer = (chunks,) if rows_first else (spec.panels, chunks)
    words = spec.k * spec.shape.columns * spec.parts
    known = static(spec.flops)
    parallel = known is None or worth_threads(known // 8, weights)

    with fused_loop((*spec.batch, *outer), parallel=parallel) as indices:
        (*batch,) = indices[: len(spec.batch)]
        chunk = indices[-1]
        tiles = Tiles(spec.shape, spec.depth, split=spec.split)
        with tiles.configured(blocks) as fit:

            def ahead(panel: Extent, block: Extent, step: Extent) -> None:
                """Brings the next panel's share of this step to the second-level cache."""
                if weights <= _RESIDENT_BYTES or words * 2 > _PANEL_BYTES:
                    return
                steps, turns = spec.k // spec.depth, min(number or 4, per_task)
                lines = -(-words // (_LINE_WORDS * steps * turns))
                turn = block if turns == number else block % turns
                first = (panel + 1) * words + (turn * steps + step) * (lines * _LINE_WORDS)
                for line in range(lines):
                    prefetch(b.address((*batch, first + line * _LINE_WORDS)), 2)

            def panel_of(panel: Extent, block: Extent, rows: Extent) -> None:
                def from_packed(tile: int, part: int, tiles_across: int, step: Extent) -> Expr:
                    place = panel * words + ((step * spec.parts + part) * tiles_across + tile) * (
                        spec.depth * COLUMNS
                    )
                    return b.address((*batch, place))

                _multiply(
                    spec,
                    tiles,
                    blocks,
                    a,
                    from_packed,
                    batch,
                    panel,
                    block,
                    rows,
                    finish,
                    lambda step: ahead(panel, block, step),
                )

            def one(block: Extent) -> None:
                rows = blocks.rows(block)
                fit(rows)
                if rows_first:
                    with loop(spec.panels) as panel:
                        panel_of(panel, block, rows)
                else:
                    panel_of(indices[len(spec.batch)], block, rows)

            _chunk(blocks, chunk, per_task, one)


def _chunk(blocks: Blocks, chunk: Extent, per_task: int, body: Callable[[Extent], None]) -> None:
    """The blocks of one task."""
    number = static(blocks.number)
    if number is not None and number <= per_task:
        with loop(number) as block:
            body(block)
        return
    exact = number is not None and number % per_task == 0
    with loop(per_task) as i:
        block = bind(i64(chunk * per_task + i))
        if exact:
            body(block)
        else:
            with when(block < i64(blocks.number)):
                body(block)


def _multiply(
    spec: TileProduct,
    tiles: Tiles,
    blocks: Blocks,
    a: Sequence[View],
    b: Callable[[int, int, int, Extent], Expr],
    batch: Sequence[Extent],
    panel: Extent,
    block: Extent,
    rows: Extent,
    finish: Finish,
    ahead: Callable[[Extent], None] = lambda step: None,
) -> None:
    """One block of results, and its epilogue; `ahead` is told of every step along K."""
    start = blocks.start(block)
    wide = spec.shape.columns
    full, rest = divmod(spec.n, wide)

    def compute(columns: int) -> None:
        across = -(-columns // COLUMNS)

        def over(step: Callable[..., None]) -> None:
            with loop(spec.k // spec.depth) as s:
                ahead(s)
                step(s)

        def from_a(_: int, row: Extent, part: int, step: Extent) -> tuple[Expr, Extent]:
            view = a[part]
            return view.address((*batch, start + row, step * spec.depth)), view.strides[-2] * 2

        tiles.block(
            rows,
            across,
            over,
            from_a,
            lambda tile, part, step: b(tile, part, across, step),
            single=blocks.single,
        )

        def store(row: Extent, column: int, value: Expr, lanes: int) -> None:
            finish((*batch, start + row, panel * wide + column), value, lanes)

        tiles.each_row(rows, columns, store)

    if not rest:
        compute(wide)
    elif not full:
        compute(rest)
    else:
        branch(i64(panel) < i64(full), lambda: compute(wide), lambda: compute(rest))


def _emit_copied(
    spec: TileProduct,
    a: Sequence[View],
    b: Sequence[View],
    finish: Finish,
    scratch: View,
) -> None:
    """Each task packs its columns of B, and multiplies all rows by them."""
    tasks = product((*spec.batch, spec.panels))
    slots = scratch_slots(tasks)
    per_slot = ceil_div(tasks, slots)
    blocks = Blocks(spec.m, spec.shape.rows)
    size = spec.k * spec.shape.columns * spec.parts
    known = static(spec.flops)
    parallel = known is None or worth_threads(known // 8)
    with loop(slots, parallel=parallel) as slot:
        tiles = Tiles(spec.shape, spec.depth, split=spec.split)
        with tiles.configured(blocks) as fit, loop(per_slot) as i:
            flat = bind(i64(slot * per_slot + i))
            with when(flat < i64(tasks)):
                (*batch, panel) = _unflatten(flat, (*spec.batch, spec.panels))
                base = scratch.offset + slot * size
                _pack(spec, b, batch, panel, View(scratch.buffer, "uint16", (1,), base))

                def from_copy(tile: int, part: int, across: int, step: Extent) -> Expr:
                    place = ((step * spec.parts + part) * spec.shape.across + tile) * (
                        spec.depth * COLUMNS
                    )
                    return View(scratch.buffer, "uint16", (1,), base).address((place,))

                with loop(blocks.number) as block:
                    rows = blocks.rows(block)
                    fit(rows)
                    _multiply(spec, tiles, blocks, a, from_copy, batch, panel, block, rows, finish)


def _unflatten(flat: Extent, extents: Sequence[Extent]) -> tuple[Extent, ...]:
    """The indices of position ``flat`` in a row-major box of ``extents``."""
    from tvm.script.ir_builder import tirx as t

    indices: list[Extent] = []
    for extent in reversed(extents[1:]):
        indices.append(bind(t.truncmod(i64(flat), i64(extent))))
        flat = bind(floor_div(flat, extent))
    indices.append(flat)
    return tuple(reversed(indices))


def _pack(
    spec: TileProduct, b: Sequence[View], batch: Sequence[Extent], panel: Extent, copy: View
) -> None:
    """Brings the columns of a panel into tile order: `[step][part][tile][depth / 2][16 columns][2]`.

    Columns beyond N hold anything: their results are computed and never used.
    """
    tile_words = spec.depth * COLUMNS
    full, rest = divmod(spec.n, spec.shape.columns)

    def pack(columns: int) -> None:
        with loop(spec.k // spec.depth) as step:
            for part, view in enumerate(b):
                for tile in range(-(-columns // COLUMNS)):
                    valid = min(COLUMNS, columns - tile * COLUMNS)
                    column = panel * spec.shape.columns + tile * COLUMNS
                    place = ((step * spec.parts + part) * spec.shape.across + tile) * tile_words
                    k = step * spec.depth
                    if spec.b == "rows":
                        _interleave(spec, view, batch, k, column, valid, copy, place)
                    else:
                        _turn(spec, view, batch, k, column, valid, copy, place)

    if not rest:
        pack(spec.shape.columns)
    elif not full:
        pack(rest)
    else:
        branch(i64(panel) < i64(full), lambda: pack(spec.shape.columns), lambda: pack(rest))


def _interleave(
    spec: TileProduct,
    b: View,
    batch: Sequence[Extent],
    k: Extent,
    column: Extent,
    valid: int,
    copy: View,
    place: Extent,
) -> None:
    """Pairs of rows, element by element."""
    with loop(spec.depth // 2) as pair:
        for start, lanes in vector_pieces(valid, COLUMNS):
            rows = [b.load((*batch, k + pair * 2 + i, column + start), lanes) for i in (0, 1)]
            order = [x for lane in range(lanes) for x in (lane, lanes + lane)]
            copy.store(shuffle(rows, order), (place + pair * 2 * COLUMNS + start * 2,))


def _turn(
    spec: TileProduct,
    b: View,
    batch: Sequence[Extent],
    k: Extent,
    column: Extent,
    valid: int,
    copy: View,
    place: Extent,
) -> None:
    """Columns that are contiguous along K: a transposition of pairs."""
    from tvm.script.ir_builder import tirx as t

    for start, pairs in vector_pieces(spec.depth // 2, COLUMNS):
        rows = []
        for i in range(COLUMNS):
            # Beyond the last column of B, that one again.
            words = b.load((*batch, column + min(i, valid - 1), k + start * 2), pairs * 2)
            rows.append(bind(t.reinterpret(_wide("uint32", pairs), words)))
        for i, vector in enumerate(interleaved(rows)):
            lanes = lanes_of(vector) * 2
            words = t.reinterpret(_wide("uint16", lanes), vector)
            copy.store(words, (place + start * 2 * COLUMNS + i * lanes,))


def _wide(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"
