"""Selecting and emitting products and convolutions on AMX tiles.

They take bodies whose root multiplies bfloat16 numbers and sums in float32: `dot(convert(x), convert(w))` of bfloat16
operands, or a product declared in bfloat16. A split product multiplies float32 numbers that are stored as two bfloat16,
`convert(high) + convert(low)`, by float32 weights or by pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.types import TensorType
from graphc.lowering.cpu.emit import Expr, Extent, View
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.families.tile.amx import pack_tiles, packed_words
from graphc.lowering.cpu.families.tile.conv import TileConv, emit_tile_conv, pack_tile_conv
from graphc.lowering.cpu.families.tile.matmul import (
    TileProduct,
    emit_tile_product,
    tile_scratch,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Array, Kernel, dim_expr
from graphc.lowering.generic.strides import Axis, Product, read_product, spread, strides_of
from graphc.lowering.packing import Packing
from graphc.ops import Add, Convert, ConvGeneral, DotGeneral, Fusion


@dataclass(frozen=True)
class Factor:
    """How an operand of the root is stored: operand slots of the kernel, a pair's high part first."""

    slots: tuple[int, ...]
    dtype: DType


def read_factor(body: Graph, value: Value) -> Factor | None:
    """What a root's operand is made of, if that is memory as tiles can be read from."""
    slots = {node.values[0]: slot for slot, node in enumerate(body.inputs)}

    def stored(value: Value) -> int | None:
        node = body.node(value.node)
        if isinstance(node.op, Convert) and body.type_of(node.operands[0]).dtype is DType.BF16:
            return slots.get(node.operands[0])
        return None

    if value in slots:
        return Factor((slots[value],), body.type_of(value).dtype)
    one = stored(value)
    if one is not None:
        return Factor((one,), DType.BF16)
    node = body.node(value.node)
    if isinstance(node.op, Add):
        high, low = (stored(v) for v in node.operands)
        if high is not None and low is not None:
            return Factor((high, low), DType.BF16)
    return None


def select_tiles(
    fusion: Fusion, root: Node, static: frozenset[int], target: CpuTarget
) -> Kernel | None:
    """A kernel on tiles for a root that multiplies bfloat16 numbers, or None where tiles do not fit."""
    if not target.amx_bf16:
        return None
    lhs, rhs = (read_factor(fusion.body, v) for v in root.operands)
    if lhs is None or rhs is None or lhs.dtype is not DType.BF16:
        return None
    split = len(lhs.slots) == 2
    known = rhs.slots[0] in static
    if rhs.dtype is not (DType.F32 if split and known else DType.BF16):
        return None
    if not known and len(lhs.slots) != len(rhs.slots):
        return None
    types = [fusion.body.type_of(v).shape for v in root.operands]
    spec = fit_tiles(root.op, types[0], types[1], packed=known, split=split)
    if spec is None or root.types[0].size == 0:
        return None
    if isinstance(spec, TileConv):
        return _conv_kernel(fusion, root, lhs, rhs, spec, target)
    return _product_kernel(fusion, root, lhs, rhs, *spec, target)


Shape = tuple[DimLike, ...]


def fit_tiles(
    op: Op, lhs: Shape, rhs: Shape, *, packed: bool, split: bool
) -> tuple[Product, TileProduct] | TileConv | None:
    """How tiles compute an op on operands of these shapes; None where they cannot.

    `packed`: the rhs is known when the module is built. `split`: numbers are pairs.
    """
    if isinstance(op, ConvGeneral) and packed and not _pointwise(op, rhs):
        return _as_conv(op, lhs, rhs, split)
    found = _as_product(op, lhs, rhs, packed)
    if found is None:
        return None
    layout = "packed" if packed else _layout(found)
    n, k = found.n.extent, found.k.extent
    inner = found.k.lhs == 1 or k == 1
    if layout is None or not isinstance(n, int) or not isinstance(k, int) or not inner:
        return None
    spec = TileProduct(found.m.extent, n, k, tuple(ax.extent for ax in found.batch), layout, split)
    return (found, spec) if spec.fits else None


def _as_product(op: Op, lhs: Shape, rhs: Shape, packed: bool) -> Product | None:
    if isinstance(op, DotGeneral):
        types = (TensorType(DType.BF16, lhs), TensorType(DType.BF16, rhs))
        return read_product(op, *types, packed_rhs=packed)
    if isinstance(op, ConvGeneral) and packed and _pointwise(op, rhs):
        *pixels, channels = lhs
        return Product(
            (),
            Axis(product(pixels), channels, 0, tuple(range(len(pixels)))),
            Axis(rhs[0], 0, 1, (len(pixels),)),
            Axis(channels, 1, rhs[0]),
        )
    return None


def _as_conv(op: ConvGeneral, lhs: Shape, rhs: Shape, split: bool) -> TileConv | None:
    """A convolution that reads inside its input, channels last, in one group."""
    inside = all(n <= 0 for pair in op.padding for n in pair)
    features, channels, *kernel = (d for d in rhs if isinstance(d, int))
    if not (op.channels_last and inside and op.groups == 1 and set(op.lhs_dilation) == {1}):
        return None
    if not 1 <= len(kernel) <= 3:
        return None
    shape = op.infer(TensorType(DType.BF16, lhs), TensorType(DType.BF16, rhs))[0].shape
    spec = TileConv(
        shape[0],
        tuple(shape[1:-1]),
        channels,
        features,
        tuple(kernel),
        op.strides,
        op.rhs_dilation,
        split,
    )
    return spec if spec.fits else None


def _pointwise(op: ConvGeneral, weight: Shape) -> bool:
    plain = set(op.strides) == {1} and set(op.lhs_dilation) == {1} and op.groups == 1
    whole = all(n == 0 for pair in op.padding for n in pair)
    return plain and whole and op.channels_last and set(weight[2:]) == {1}


def _layout(product: Product) -> str | None:
    """How a run-time rhs lies: rows or columns of it contiguous."""
    if product.n.rhs == 1 or product.n.extent == 1:
        return "rows"
    return "columns" if product.k.rhs == 1 or product.k.extent == 1 else None


def _product_kernel(
    fusion: Fusion,
    root: Node,
    lhs: Factor,
    rhs: Factor,
    found: Product,
    spec: TileProduct,
    target: CpuTarget,
) -> Kernel:
    op = root.op
    packed = spec.b == "packed"
    words = packed_words(spec.k, spec.n, split=spec.split)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        axes = (*found.batch, found.m, found.n)

        def view(slot: int, strides: Sequence[DimLike]) -> View:
            memory = io.operands[slot]
            return View(
                memory.buffer,
                "uint16",
                tuple(dim_expr(s, io.dims) for s in strides),
                memory.offset,
            )

        along = [ax.lhs for ax in (*found.batch, found.m)]
        a = [view(slot, [*along, 1]) for slot in lhs.slots]
        if packed:
            steps = [_matrices(ax, spec) * words for ax in found.batch]
            b = [view(rhs.slots[0], [*steps, 1])]
        else:
            row = found.k.rhs if spec.b == "rows" else found.n.rhs
            b = [view(slot, [*(ax.rhs for ax in found.batch), row, 1]) for slot in rhs.slots]

        def finish(index: Sequence[Extent], value: Expr, lanes: int) -> None:
            with epilogue.emitter.space.rewound(), epilogue.emitter.vector(lanes) as lane:
                at: list[DimLike] = [0] * root.types[0].rank
                for axis, i in zip(axes, index, strict=True):
                    position = epilogue.emitter.bound(i, 0, axis.extent - 1)
                    position = position + lane if axis is found.n else position
                    spread(position, axis, root.types[0].shape, at)
                epilogue.store(at, value)

        concrete = TileProduct(
            dim_expr(spec.m, io.dims),
            spec.n,
            spec.k,
            tuple(dim_expr(d, io.dims) for d in spec.batch),
            spec.b,
            spec.split,
        )
        emit_tile_product(concrete, a, b, finish, scratch=io.scratch)

    packing = {}
    if packed:
        name = f"tiles/{op}/{spec.depth}/{spec.shape.across}/{spec.parts}"
        packing[rhs.slots[0]] = Packing(name, lambda w: _packed(op, w, spec), dtype="uint16")
    return Kernel("tiles", emit, tile_scratch(spec), "uint16", packing)


def _conv_kernel(
    fusion: Fusion, root: Node, lhs: Factor, rhs: Factor, spec: TileConv, target: CpuTarget
) -> Kernel:
    op = root.op
    assert isinstance(op, ConvGeneral)
    shape = fusion.body.type_of(root.operands[0]).shape

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        strides = tuple(dim_expr(s, io.dims) for s in strides_of(shape))

        def part(slot: int) -> View:
            memory = io.operands[slot]
            whole = View(memory.buffer, "uint16", strides, memory.offset)
            return whole.shifted((0, *(-low for low, _ in op.padding), 0))

        weights = io.operands[rhs.slots[0]]
        batch, *output = (dim_expr(d, io.dims) for d in (spec.batch, *spec.output))
        emit_tile_conv(
            replace(spec, batch=batch, output=tuple(output)),
            [part(slot) for slot in lhs.slots],
            View(weights.buffer, "uint16", (1,), weights.offset),
            epilogue.finish,
        )

    name = f"tiles/conv/{spec.line}/{spec.depth}/{spec.parts}"
    packing = Packing(name, lambda w: pack_tile_conv(w, spec), dtype="uint16")
    return Kernel("tile_conv", emit, packing={rhs.slots[0]: packing})


def _matrices(axis: Axis, spec: TileProduct) -> int:
    """How many packed matrices lie between neighbours along a batch dimension; 0 repeats one."""
    assert isinstance(axis.rhs, int)
    return axis.rhs // (spec.k * spec.n)


def _packed(op: Op, weight: Array, spec: TileProduct) -> Array:
    if isinstance(op, DotGeneral):
        order = op.rhs_batch + op.rhs_contract + op.rhs_free(weight.ndim)
        batch = tuple(weight.shape[i] for i in op.rhs_batch)
        matrices = weight.transpose(order).reshape(*batch, spec.k, spec.n)
    else:
        matrices = weight.reshape(spec.n, spec.k).T
    return pack_tiles(matrices.astype(np.float32), spec.depth, spec.shape.across, split=spec.split)
