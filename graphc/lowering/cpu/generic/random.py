"""Random bits as vector code: four neighbouring elements are the four words of one block.

Words are kept one to a 64-bit lane, where the product of two of them is one instruction and its halves are a shift
apart. A vector of dense elements takes a quarter as many lanes, and is put in order once at the end; where it does not
start at a block, one more block is computed and the vector is read from memory at the offset. Elements that are not
neighbours (a tensor read in another layout) each compute their block and pick one word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.dim import DimLike, floordiv
from graphc.ir.op import Expr
from graphc.lowering.cpu.cell import Cell
from graphc.lowering.cpu.emit import (
    bind,
    cast,
    const,
    i64,
    lanes_of,
    local,
    select,
    shuffle,
    splat,
)
from graphc.lowering.generic.index import linear, settle
from graphc.ops.random import ROUNDS, counter_words, next_key, philox_round

if TYPE_CHECKING:
    from graphc.lowering.cpu.generic.expr import TirEmitter


def random_bits(e: TirEmitter, key: Sequence[Expr], stream: DimLike, position: DimLike) -> Expr:
    """Elements of a stream at a position, as many as it has lanes, as int32; `key` are two int64 scalars."""
    start, number = _dense(e, position), cast(i64(e.expr(stream)), "uint64")
    if start is None:
        return _picked(key, number, e.expr(position))
    first, count = floordiv(start, 4), e.lanes // 4
    bits = _in_order(_pairs(key, number, _blocks(e.expr(first), count)))
    offset = start - first * 4
    if offset == 0:
        return bind(bits)
    more = _in_order(_pairs(key, number, _blocks(e.expr(first + count), 1)))
    return _shifted(bits, more, e.expr(offset))


def _dense(e: TirEmitter, position: DimLike) -> DimLike | None:
    """Where a vector of neighbours starts; None for one that is none, or is too short."""
    if e.lanes < 4 or e.lane_name is None:
        return None
    parts = linear(settle(position, e.lane_name, e.lanes), e.lane_name)
    if parts is None or parts[1] != 1 or e.varies(parts[0]):
        return None
    return parts[0]


def _blocks(first: Expr, count: int) -> Expr:
    """The numbers of successive blocks."""
    from tvm.script.ir_builder import tirx as t

    return bind(cast(first if count == 1 else t.ramp(first, i64(1), count), "uint64"))


def _pairs(key: Sequence[Expr], stream: Expr, block: Expr) -> tuple[Expr, Expr]:
    """Words 0 and 1 of every block in one 64-bit lane, and words 2 and 3 in another."""
    lanes = lanes_of(block)
    halves: list[Expr] = []
    for half in key:
        whole = bind(cast(half, "uint64"))
        halves += [whole & const(0xFFFFFFFF, "uint64"), whole >> const(32, "uint64")]
    seed, step = halves[:2], [splat(half, lanes) for half in halves[2:]]

    def number(value: int) -> Expr:
        return const(value, "uint64", lanes)

    words = _rounds(counter_words(block, splat(stream, lanes), (step[0], step[1])), seed)
    low, half = number(0xFFFFFFFF), number(32)
    w0, w1, w2, w3 = (cell.get() for cell in words)
    return bind((w0 & low) | (w1 << half)), bind((w2 & low) | (w3 << half))


def _rounds(counter: Sequence[Expr], seed: Sequence[Expr]) -> list[Cell]:
    """The generator, as a loop: LLVM unrolls it, and what comes before LLVM sees a tenth of the code."""
    from tvm.script.ir_builder import tirx as t

    lanes = lanes_of(counter[0])
    words, key = [Cell(lanes, "uint64") for _ in counter], [Cell(1, "uint64") for _ in seed]
    for cell, value in zip((*words, *key), (*counter, *seed), strict=True):
        cell.set(value)
    with t.serial(i64(0), i64(ROUNDS)):
        now = key[0].get(), key[1].get()
        wide = splat(now[0], lanes), splat(now[1], lanes)
        new = philox_round([c.get() for c in words], wide, lambda n: const(n, "uint64", lanes))
        after = next_key(now, lambda n: const(n, "uint64"))
        for cell, value in zip((*words, *key), [bind(v) for v in (*new, *after)], strict=True):
            cell.set(value)
    return words


def _in_order(pairs: tuple[Expr, Expr]) -> Expr:
    """All words of the blocks, block after block, as int32."""
    from tvm.script.ir_builder import tirx as t

    lanes = lanes_of(pairs[0])
    both = shuffle(pairs, [x for i in range(lanes) for x in (i, lanes + i)])
    return t.reinterpret(f"int32x{4 * lanes}", both)


def _shifted(bits: Expr, more: Expr, offset: Expr) -> Expr:
    """The vector that starts `offset` words later in `bits`, which `more` goes on."""
    from tvm.script.ir_builder import tirx as t

    lanes = lanes_of(bits)
    words = local(lanes + 4, "int32")
    t.buffer_store(words, bits, [t.ramp(i64(0), i64(1), lanes)])
    t.buffer_store(words, more, [t.ramp(i64(lanes), i64(1), 4)])
    return bind(words[t.ramp(offset, i64(1), lanes)])


def _picked(key: Sequence[Expr], stream: Expr, position: Expr) -> Expr:
    """Elements anywhere: each computes its block and takes one word."""
    import tvm.tirx as tx

    lanes = lanes_of(position)

    def number(value: int) -> Expr:
        return const(value, "uint64", lanes)

    at = bind(cast(position, "uint64"))
    first, second = _pairs(key, stream, bind(at >> number(2)))
    pair = bind(select(tx.EQ(at & number(2), number(0)), first, second))
    word = select(tx.EQ(at & number(1), number(0)), pair, pair >> number(32))
    return bind(cast(cast(word, "uint32"), "int32"))
