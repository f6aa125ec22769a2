"""Attention's gradient without its score matrix, in two launches: dq and what is known of each query, then dk and dv.

On tensor cores for operands in half precision that are read 16 bytes at a time (`gradient.cuh`), else on plain
units, in f32 (`gradient_plain.cuh`). Every sum has one owner and an order of its own: same input, same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.lowering.cuda.attention.mask import mask_of
from graphc.lowering.cuda.emit import VECTOR_BYTES, Expr, call, const, i64, pure
from graphc.lowering.cuda.emitter import CudaEmitter, divides
from graphc.lowering.cuda.io import Kernel, KernelIO, Setting, Stage
from graphc.lowering.generic.index import Space
from graphc.lowering.generic.operands import Read, in_memory, strided
from graphc.lowering.generic.strides import strides_of
from graphc.ops import AttentionGradient, Convert, Fusion, Transpose

__all__ = ["select_attention_gradient"]

_THREADS = 128
_TILE = 64  # queries or keys of a block on tensor cores
_PLAIN = 32  # and on plain units
_PANEL = 64  # elements of a row in a panel of shared memory
_CHUNK = 8  # elements of 16 bytes
_WIDEST = 128
_ROW_BYTES = 8  # what is known of a query: two f32
_STORED = (DType.F32, DType.BF16, DType.F16)


@dataclass(frozen=True)
class _Gradient:
    """What a fusion of an `attention_gradient` computes: how it reads q, k, v, result, cotangent."""

    body: Graph
    root: Node
    op: AttentionGradient
    read: tuple[Read, ...]

    @property
    def stored(self) -> list[DType]:
        """Element types of the operands in memory."""
        return [self.body.inputs[slot].types[0].dtype for slot, _ in self.read]

    @property
    def q(self) -> tuple[DimLike, ...]:
        """[B, h, T, d]."""
        return self.root.types[0].shape

    @property
    def v(self) -> tuple[DimLike, ...]:
        """[B, h, S, e]."""
        return self.root.types[2].shape

    @property
    def results(self) -> list[DType]:
        """Element types of the results in memory."""
        return [self.body.type_of(v).dtype for _, v in self.body.outputs]

    @property
    def tensor_cores(self) -> bool:
        """Whether tensor cores multiply the operands as they lie."""
        plain = all(
            along == 1 and all(divides(_CHUNK, s) for s in outer)
            for _, (*outer, along) in self.read
        )
        narrow = set(self.stored) in ({DType.BF16}, {DType.F16})
        return plain and narrow and all(divides(_CHUNK, d) for d in (self.q[3], self.v[3]))


def select_attention_gradient(fusion: Fusion, root: Node, setting: Setting) -> Kernel | None:
    """Kernels for a fusion whose root is an `attention_gradient`, or None where they do not fit."""
    op, body = root.op, fusion.body
    assert isinstance(op, AttentionGradient)
    g = _Gradient(body, root, op, tuple(strided(body, value) for value in root.operands[:5]))
    depth, width = g.q[3], g.v[3]
    if any(in_memory(body, mask) is None for mask in root.operands[5:]):
        return None
    if not (isinstance(depth, int) and isinstance(width, int)) or max(depth, width) > _WIDEST:
        return None
    kept = [_ending(body, v)[0] for _, v in body.outputs]
    stored = {*g.stored, *g.results}
    if tuple(kept) != root.values or not stored <= set(_STORED) or len(set(g.results)) > 1:
        return None
    fast = g.tensor_cores and setting.alignment == VECTOR_BYTES
    tile = _TILE if fast else _PLAIN
    launches = []
    for keys, extent in ((False, g.q[2]), (True, g.v[2])):
        bytes = _panels(g) if fast else 4 * _PLAIN * 2 * ((depth | 1) + (width | 1))
        grid = ((extent + (tile - 1)) // tile, g.q[1], g.q[0])
        launches.append(Stage(_emit(g, keys, fast, tile), grid, _THREADS, bytes))
    scratch = product(g.q[:3]) * _ROW_BYTES
    return Kernel("flash gradient" if fast else "attention gradient", tuple(launches), scratch)


def _ending(body: Graph, value: Value) -> tuple[Value, tuple[int, ...]]:
    """What a result is of the root, and the order in which its dimensions are stored: converted, then transposed."""
    node = body.node(value.node)
    order: tuple[int, ...] = (0, 1, 2, 3)
    if isinstance(node.op, Transpose):
        order, value = node.op.permutation, node.operands[0]
        node = body.node(value.node)
    if isinstance(node.op, Convert):
        value = node.operands[0]
    return value, order


def _others(g: _Gradient) -> int:
    """Keys that a block of queries goes over at a time, or the reverse: what registers hold beside the sums."""
    depth, width = g.q[3], g.v[3]
    assert isinstance(depth, int) and isinstance(width, int)
    return 32 if max(depth, width) > _PANEL else 64


def _panels(g: _Gradient) -> int:
    """Shared memory: the block's own two tiles, and twice two of what it goes over."""
    depth, width = g.q[3], g.v[3]
    assert isinstance(depth, int) and isinstance(width, int)
    panels = -(-depth // _PANEL) + -(-width // _PANEL)
    return panels * _PANEL * 2 * (_TILE + 2 * _others(g))


def _emit(g: _Gradient, keys: bool, fast: bool, tile: int) -> Callable[[KernelIO], None]:
    def emit(io: KernelIO) -> None:
        _Writer(g, io, keys, tile).emit(fast)

    return emit


class _Writer:
    """One kernel's code: a call with the addresses of one head."""

    def __init__(self, g: _Gradient, io: KernelIO, keys: bool, tile: int) -> None:
        self.g, self.io, self.keys = g, io, keys
        self.e = e = CudaEmitter(Space(g.body.dims), io)
        x, y, z = io.thread.block
        extent = (g.v if keys else g.q)[2]
        self.first = e.bound(x, 0, (extent + (tile - 1)) // tile - 1) * tile
        self.at = e.bound(z, 0, g.q[0] - 1), e.bound(y, 0, g.q[1] - 1)

    def emit(self, fast: bool) -> None:
        """Writes what a thread does."""
        g, e = self.g, self.e
        sizes = f"{g.q[3]}, {g.v[3]}, {'true' if g.op.causal else 'false'}"
        out = f"graphc_stored_{g.results[0]}"
        mask = mask_of(e, self.io, g.body, next(iter(g.root.operands[5:]), None), self.at)
        results = [x for n in ((1, 2) if self.keys else (0,)) for x in self._result(n)]
        limits = e.wide(g.q[2]), e.wide(g.v[2]), const(g.op.scale, "float32")
        where = "keys" if self.keys else "queries"
        leading = (*results, self._rows(), e.wide(self.first))
        if fast:
            starts = [self._start(operand) for operand in range(5)]
            strides = [e.wide(steps[2]) for _, steps in g.read]
            dtype = g.stored[0]
            types = f"graphc_{dtype}, graphc_stored_{dtype}, {out}, {sizes}, {_others(g)}"
            x = pure("graphc_attended", "int32", *starts, *strides, *limits)
            call(f"graphc_attend_back_to_{where}<{types}>", *leading, x, mask)
            return
        used = (0, 1, 2, 4) if self.keys else range(5)
        operands = [
            pure(
                f"graphc_strided<graphc_stored_{g.stored[n]}>",
                "int32",
                self._start(n),
                e.wide(g.read[n][1][2]),
                e.wide(g.read[n][1][3]),
            )
            for n in used
        ]
        call(f"graphc_plain_back_to_{where}<{out}, {sizes}>", *leading, *operands, *limits, mask)

    def _start(self, operand: int) -> Expr:
        """The first element of an operand's head."""
        slot, strides = self.g.read[operand]
        start = self.at[0] * strides[0] + self.at[1] * strides[1]
        return self.io.operands[slot].address(self.e.expr(start))

    def _result(self, number: int) -> tuple[Expr, Expr]:
        """The first element of a result's head, and how far its rows are apart."""
        output = self.g.body.outputs[number][1]
        strides = strides_of(self.g.body.type_of(output).shape)
        _, order = _ending(self.g.body, output)
        batch, head, row = (strides[order.index(d)] for d in range(3))
        start = self.at[0] * batch + self.at[1] * head
        return self.io.results[number].address(self.e.expr(start)), self.e.wide(row)

    def _rows(self) -> Expr:
        """What is known of the head's queries."""
        assert self.io.scratch is not None
        _, heads, queries, _ = self.g.q
        start = (self.at[0] * heads + self.at[1]) * queries * _ROW_BYTES
        return self.io.scratch.address(i64(self.e.wide(start)))
