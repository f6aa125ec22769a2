"""The tile registers of AMX: shapes of tiles, weights in the order they multiply, and one block of results.

A tile holds 16 rows of 64 bytes. `tdpbf16ps` adds to 16 x 16 float32 sums the products of 16 rows of 32 bfloat16 of A
with 16 rows of B, each of which holds 16 columns of two neighbouring depths (pairs side by side: "VNNI" order). A block
of results is two by two such tiles (32 x 32 sums), so that each tile loaded is used twice, or one by four where there
are 16 rows or fewer.

Sources: Intel SDM volume 1, chapter 18 (tile configuration), volume 2 (TDPBF16PS, TILELOADD).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    bind,
    branch,
    ceil_div,
    const,
    floor_div,
    i64,
    local,
    loop,
    maximum_extent,
    static,
    vector_pieces,
    when,
)

__all__ = [
    "COLUMNS",
    "DEPTH",
    "ROWS",
    "Blocks",
    "Shape",
    "Tiles",
    "chunk_depth",
    "pack_tiles",
    "packed_words",
]

Array = np.ndarray[Any, np.dtype[Any]]
ROWS, COLUMNS, DEPTH = 16, 16, 32
"""Rows and columns of a tile of results; elements of K that one instruction takes."""
_PALETTE = 1


@dataclass(frozen=True)
class Shape:
    """Tiles of one block of results: `down` rows of tiles by `across` columns of them."""

    down: int
    across: int

    @property
    def rows(self) -> int:
        """Most rows of a block."""
        return self.down * ROWS

    @property
    def columns(self) -> int:
        """Most columns of a block."""
        return self.across * COLUMNS


def chunk_depth(k: int) -> int:
    """Elements of K for one instruction: the largest even divisor of `k` up to 32; 0 where `k` is odd.

    Tiles are never padded: A is read where it lies, and what lies beyond its row must not be touched.
    """
    return max((d for d in range(2, DEPTH + 1, 2) if k % d == 0), default=0)


def pack_tiles(b: Array, depth: int, across: int, *, split: bool = False) -> Array:
    """Matrices `[..., K, N]` as tiles, in 16-bit words: `[..., words]`.

    The order is `[block of N][K / depth][part][tile][depth / 2][16 columns][2]`.
    The last block has only the tiles it needs; columns beyond N are zero. The parts are the rounded numbers, and with
    `split` what rounding has taken off, rounded itself.
    """
    *batch, k, n = b.shape
    steps, wide = k // depth, across * COLUMNS
    tiles = -(-n // COLUMNS)
    padded = np.zeros((*batch, k, tiles * COLUMNS), np.float32)
    padded[..., :n] = b
    high = padded.astype(ml_dtypes.bfloat16)
    parts = [high]
    if split:
        parts.append((padded - high.astype(np.float32)).astype(ml_dtypes.bfloat16))
    blocks = []
    for start in range(0, tiles * COLUMNS, wide):
        count = min(wide, tiles * COLUMNS - start) // COLUMNS
        pieces = [
            p[..., start : start + count * COLUMNS].reshape(
                *batch, steps, depth // 2, 2, count, COLUMNS
            )
            for p in parts
        ]
        block = np.stack(pieces, axis=len(batch) + 1)  # batch, step, part, pair, 2, tile, column
        order = [*range(len(batch) + 2), *(len(batch) + i for i in (4, 2, 5, 3))]
        blocks.append(block.transpose(order).reshape(*batch, -1))
    return np.concatenate(blocks, axis=-1).view(np.uint16)


def packed_words(k: int, n: int, *, split: bool = False) -> int:
    """16-bit words of one packed matrix."""
    return k * -(-n // COLUMNS) * COLUMNS * (2 if split else 1)


class Blocks:
    """An axis of rows in near-equal blocks of at most `size`: the larger ones first.

    Attributes:
        number: how many.
        even: whether all are equal, which needs a static extent.
        single: whether a block can have one row only.
    """

    def __init__(self, extent: Extent, size: int) -> None:
        known = static(extent)
        self.extent = extent
        self.number = ceil_div(extent, size)
        if known is not None:
            self._base, self._larger = divmod(known, max(1, -(-known // size)))
        else:
            number = bind(i64(self.number))
            self._base = bind(floor_div(extent, number))
            self._larger = bind(i64(extent) - self._base * number)
        self.even = known is not None and self._larger == 0
        self.single = known is None or self._base == 1
        self.height: int | None = self._base if self.even else None

    def start(self, block: Extent) -> Extent:
        """The first row of a block."""
        if self.even:
            return block * self._base
        from tvm.script.ir_builder import tirx as t

        return bind(i64(block) * self._base + t.min(i64(block), i64(self._larger)))

    def rows(self, block: Extent) -> Extent:
        """Rows of a block."""
        if self.height is not None:
            return self.height
        from tvm.script.ir_builder import tirx as t

        return bind(i64(self._base) + t.Cast("int64", i64(block) < i64(self._larger)))


class Tiles:
    """The tile registers of one thread, inside one task.

    Registers 0 to 3 are sums, 4 (and 5) hold A, the others B. The results of a block wait in an array on the stack for
    the epilogue, its rows side by side.

    Args:
        shape: tiles of a block.
        depth: elements of K of one instruction.
        split: whether each number is a pair of bfloat16 whose sum it is (see `step`).
    """

    def __init__(self, shape: Shape, depth: int, *, split: bool = False) -> None:

        self.shape, self.depth, self.split = shape, depth, split
        self._config = local(64, "uint8")
        self._rows = local(1, "int64")
        self._sums = local(shape.rows * shape.columns, "float32")
        self._a = {4: 0, 5: 1} if shape.down == 2 else {4: 0, 5: 0} if split else {4: 0}
        self._b = [r for r in range(4, 8) if r not in self._a]

    @contextmanager
    def configured(self, blocks: Blocks) -> Iterator[Callable[[Extent], None]]:
        """Tiles for blocks of an axis; yields what to call with a block's rows before it is computed."""
        from tvm.script.ir_builder import tirx as t

        if blocks.height is not None:
            self._configure(blocks.height)
            yield lambda rows: None
        else:
            t.buffer_store(self._rows, i64(0), [0])

            def fit(rows: Extent) -> None:
                with when(self._rows[0] != i64(rows)):
                    self._configure(rows)
                    t.buffer_store(self._rows, i64(rows), [0])

            yield fit
        _run("tilerelease")

    def _configure(self, rows: Extent) -> None:
        """Sets the tiles' shapes for blocks of `rows` rows."""
        from tvm.script.ir_builder import tirx as t

        def put(at: int, value: Extent) -> None:
            byte = const(value, "uint8") if isinstance(value, int) else t.Cast("uint8", value)
            t.buffer_store(self._config, byte, [at])

        for at in range(64):
            put(at, _PALETTE if at == 0 else 0)
        first = self._upper(rows)
        height = [first, maximum_extent(rows - first, 1)]
        for register in range(8):
            wide, high = 64, self.depth // 2
            if register < 4:
                high = height[register // self.shape.across]
            elif register in self._a:
                wide, high = self.depth * 2, height[self._a[register]]
            put(16 + 2 * register, wide)
            put(48 + register, high)
        _run("ldtilecfg", t.address_of(self._config[0]))

    def _upper(self, rows: Extent) -> Extent:
        """Rows of the upper tiles of a block."""
        return floor_div(rows + 1, 2) if self.shape.down == 2 else rows

    def block(
        self,
        rows: Extent,
        across: int,
        over: Callable[[Callable[..., None]], None],
        a: Callable[..., tuple[Expr, Extent]],
        b: Callable[..., Expr],
        *,
        single: bool = False,
        down: int = 2,
    ) -> None:
        """Computes a block and leaves it for `each_row`.

        Args:
            rows: its rows, as configured.
            across: its columns of tiles.
            over: opens the loops over K around what it is given, and calls that with their indices.
            a: `a(tile, row, part, *indices)` is the address of a tile of A, from `row` of the block on, and the bytes
                from row to row.
            b: `b(tile, part, *indices)` is the address of a tile of B; its rows are 64 bytes apart.
            single: whether `rows` may be 1.
            down: 1 leaves out the lower tiles.
        """
        first = self._upper(rows)

        def compute(down: int) -> None:
            starts = [0, first][:down]
            for i in range(down):
                for j in range(across):
                    _run("tilezero", _u8(i * self.shape.across + j))
            over(lambda *at: self._step(starts, across, a, b, at))
            for i, start in enumerate(starts):
                for j in range(across):
                    place = start * self.shape.columns + j * COLUMNS
                    _run(
                        "tilestored64",
                        _u8(i * self.shape.across + j),
                        self._address(place),
                        i64(self.shape.columns * 4),
                    )

        if min(self.shape.down, down) == 1:
            compute(1)
        elif single:
            branch(i64(rows) > i64(1), lambda: compute(2), lambda: compute(1))
        else:
            compute(2)

    def _step(
        self,
        starts: Sequence[Extent],
        across: int,
        a: Callable[..., tuple[Expr, Extent]],
        b: Callable[..., Expr],
        at: Sequence[Extent],
    ) -> None:
        """One step along K.

        A split number is high + low, so a product is high high + high low + low high, and low low, which is left out:
        it is below the error of the pairs themselves.
        """

        def load_a(register: int, i: int, part: int) -> None:
            address, stride = a(i, starts[i], part, *at)
            _run("tileloadd64", _u8(register), address, i64(stride))

        def load_b(register: int, j: int, part: int) -> None:
            _run("tileloadd64", _u8(register), b(j, part, *at), i64(64))

        def multiply(i: int, j: int, left: int, right: int) -> None:
            _run("tdpbf16ps", _u8(i * self.shape.across + j), _u8(left), _u8(right))

        rows = range(len(starts))
        if self.shape.down == 2:
            for left, right in ((1, 0), (0, 0), (0, 1)) if self.split else ((0, 0),):
                if (left, right) != (0, 1):
                    for i in rows:
                        load_a(4 + i, i, left)
                for j in range(across):
                    if (left, right) != (0, 0) or not self.split:
                        load_b(6 + j, j, right)
                    for i in rows:
                        multiply(i, j, 4 + i, 6 + j)
            return
        for part in range(len(self._a)):
            load_a(4 + part, 0, part)
        for j in range(across):
            if not self.split:
                register = self._b[j % len(self._b)]
                load_b(register, j, 0)
                multiply(0, j, 4, register)
                continue
            load_b(6, j, 0)
            multiply(0, j, 5, 6)
            multiply(0, j, 4, 6)
            load_b(7, j, 1)
            multiply(0, j, 4, 7)

    def each_row(
        self, rows: Extent, columns: int, body: Callable[..., None], start: Extent = 0
    ) -> None:
        """Hands out rows from `start` on of the block computed last: `body(row - start, column, value, lanes)`."""
        with loop(rows) as row:
            for column, lanes in vector_pieces(columns, 2 * COLUMNS):
                place = i64((start + row) * self.shape.columns + column)
                value = self._sums[place if lanes == 1 else _ramp(place, lanes)]
                body(row, column, value, lanes)

    def _address(self, place: Extent) -> Expr:
        from tvm.script.ir_builder import tirx as t

        return t.address_of(self._sums[i64(place)])


def _ramp(place: Expr, lanes: int) -> Expr:
    from tvm.script.ir_builder import tirx as t

    return t.ramp(place, i64(1), lanes)


def _u8(value: int) -> Expr:
    return const(value, "uint8")


def _run(name: str, *arguments: Expr) -> None:
    """An AMX instruction; register numbers are constants in it."""
    from tvm.script.ir_builder import tirx as t

    t.evaluate(t.call_llvm_intrin("void", f"llvm.x86.{name}", *arguments))
