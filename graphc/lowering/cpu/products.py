"""Selecting and emitting matrix products: a `dot_general` root on the matmul family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.dim import DimLike
from graphc.ir.graph import Node
from graphc.lowering.cpu.emit import Expr, Extent, View
from graphc.lowering.cpu.epilogue import Epilogue
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.index import unflatten
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, Packing, dim_expr
from graphc.lowering.cpu.matmul import (
    MatmulSpec,
    choose_matmul,
    emit_matmul,
    pack_matmul,
    scratch_bytes,
)
from graphc.lowering.cpu.strides import Axis, Product, read_product
from graphc.ops import DotGeneral, Fusion

Array = np.ndarray[Any, np.dtype[Any]]
DTYPES = ("float32", "float64")


def select_product(
    fusion: Fusion, root: Node, static: frozenset[int], target: CpuTarget
) -> Kernel | None:
    """A kernel for a fusion whose root is a `dot_general`, or None when it is not a plain product.

    `static` holds the operand slots that are known when the module is built: such a rhs is packed.
    """
    op, body = root.op, fusion.body
    assert isinstance(op, DotGeneral)
    slots = [_slot(fusion, v.node) for v in root.operands]
    lhs, rhs = (body.type_of(v) for v in root.operands)
    dtype = str(root.types[0].dtype.numpy)
    if None in slots or dtype not in DTYPES or root.types[0].size == 0:
        return None
    packed = slots[1] in static
    product = read_product(op, lhs, rhs, packed_rhs=packed)
    if product is None:
        return None
    layout = "packed" if packed else _layout(product)
    if layout is None:
        return None
    spec = _spec(product, layout, dtype, {})
    tile = choose_matmul(spec, target)
    n = product.n.extent

    def pack(array: Array) -> Array:
        order = op.rhs_batch + op.rhs_contract + op.rhs_free(rhs.rank)
        batch = tuple(array.shape[i] for i in op.rhs_batch)
        k = int(np.prod([array.shape[i] for i in op.rhs_contract], dtype=np.int64))
        return pack_matmul(array.transpose(order).reshape(*batch, k, -1), tile.nr)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(body, root, io, target)
        epilogue.fill_border()
        axes = (*product.batch, product.m, product.n)
        a = _view(io, slots[0], dtype, [ax.lhs for ax in (*product.batch, product.m, product.k)])
        if packed:
            # [batch..., panel, k, column]; batch loops of the lhs alone repeat the weights.
            assert isinstance(n, int) and isinstance(product.k.extent, int)
            panel = product.k.extent * tile.nr
            panels = -(-n // tile.nr)
            matrix = product.k.extent * n
            strides = [_scaled(ax.rhs, matrix, panel * panels) for ax in product.batch]
            b = _view(io, slots[1], dtype, [*strides, panel, tile.nr, 1])
        else:
            last = (product.k, product.n) if layout == "rows" else (product.n, product.k)
            strides = [ax.rhs for ax in (*product.batch, *last)]
            b = _view(io, slots[1], dtype, [*strides[:-1], 1])

        def finish(index: Sequence[Extent], value: Expr, lanes: int) -> None:
            with epilogue.emitter.vector(lanes) as lane:
                at: list[DimLike] = [0] * root.types[0].rank
                for axis, i in zip(axes, index, strict=True):
                    position = epilogue.emitter.bound(i, 0, axis.extent - 1)
                    position = position + lane if axis is product.n else position
                    _spread(position, axis, root.types[0].shape, at)
                epilogue.store(at, value)

        emit_matmul(
            _spec(product, layout, dtype, io.dims),
            target,
            a,
            b,
            finish,
            tile=tile,
            scratch=io.scratch,
        )

    packing = {}
    if packed:
        assert slots[1] is not None
        name = f"matmul{op.rhs_batch}{op.rhs_contract}/{tile.nr}"
        packing = {slots[1]: Packing(name, pack)}
    return Kernel("matmul", emit, scratch_bytes(spec, target), dtype, packing)


def _slot(fusion: Fusion, node: int) -> int | None:
    """Which operand of the kernel a body node is, if it is one."""
    ids = [n.id for n in fusion.body.inputs]
    return ids.index(node) if node in ids else None


def _layout(product: Product) -> str | None:
    """How a run-time rhs lies: rows of B or columns of B contiguous."""
    if product.n.rhs == 1 or product.n.extent == 1:
        return "rows"
    if product.k.rhs == 1 or product.k.extent == 1:
        return "columns"
    return None


def _spec(product: Product, layout: str, dtype: str, env: Mapping[str, Any]) -> MatmulSpec:
    """The family's spec; without an environment, named dims stay what they are."""

    def extent(dim: DimLike) -> Extent:
        return dim_expr(dim, env) if env else dim

    return MatmulSpec(
        extent(product.m.extent),
        extent(product.n.extent),
        extent(product.k.extent),
        tuple(extent(ax.extent) for ax in product.batch),
        layout,
        dtype,
    )


def _view(io: KernelIO, slot: int | None, dtype: str, strides: Sequence[DimLike]) -> View:
    assert slot is not None
    memory = io.operands[slot]
    return View(memory.buffer, dtype, tuple(dim_expr(s, io.dims) for s in strides), memory.offset)


def _scaled(stride: DimLike, matrix: int, packed: int) -> int:
    """A batch stride in whole matrices, as one in packed matrices."""
    assert isinstance(stride, int) and stride % matrix == 0
    return stride // matrix * packed


def _spread(position: DimLike, axis: Axis, shape: Sequence[DimLike], at: list[DimLike]) -> None:
    """Writes a merged axis' position to the result dims it stands for."""
    for dim, index in zip(
        axis.dims, unflatten(position, [shape[d] for d in axis.dims]), strict=True
    ):
        at[dim] = index
