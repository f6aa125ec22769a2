"""Selecting and emitting matrix products: a `dot_general` root on the matmul family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.dim import DimLike
from graphc.ir.dim import product as dim_product
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.lowering.cpu.emit import Expr, Extent, View
from graphc.lowering.cpu.families.dense.matmul import (
    MatmulSpec,
    choose_matmul,
    emit_matmul,
    scratch_bytes,
)
from graphc.lowering.cpu.families.epilogue import Epilogue, functions_behind
from graphc.lowering.cpu.families.packing import write_matmul
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.strides import Product, read_product, spread, stored_slots
from graphc.lowering.packing import Packing
from graphc.ops import DotGeneral, Fusion, Reshape, Transpose

DTYPES = ("float32", "float64")


def select_product(
    fusion: Fusion, root: Node, static: frozenset[int], target: CpuTarget
) -> Kernel | None:
    """A kernel for a fusion whose root is a `dot_general`, or None when it is not a plain product.

    `static` holds the operand slots that are known when the module is built: such a rhs is packed.
    """
    op = root.op
    assert isinstance(op, DotGeneral)
    slots = stored_slots(fusion, root)
    if slots is None:
        return None
    lhs, rhs = (fusion.body.type_of(v) for v in root.operands)
    packed = slots[1] in static
    product = read_product(op, lhs, rhs, packed_rhs=packed)
    if product is None:
        return None

    def matrices(b: GraphBuilder, x: Value) -> Value:
        order = op.rhs_batch + op.rhs_contract + op.rhs_free(rhs.rank)
        batch = tuple(rhs.shape[i] for i in op.rhs_batch)
        k = dim_product(rhs.shape[i] for i in op.rhs_contract)
        n = dim_product(rhs.shape[i] for i in op.rhs_free(rhs.rank))
        return b(Reshape((*batch, k, n)), b(Transpose(order), x))

    name = f"dot{op.rhs_batch}{op.rhs_contract}"
    return product_kernel(
        fusion, root, slots, product, target, Matrices(name, matrices) if packed else None
    )


@dataclass(frozen=True, eq=False)
class Matrices:
    """How an operand becomes [batch..., k, n]; equal names mean equal ways."""

    name: str
    write: Callable[[GraphBuilder, Value], Value]


def product_kernel(
    fusion: Fusion,
    root: Node,
    slots: tuple[int, int],
    product: Product,
    target: CpuTarget,
    matrices: Matrices | None,
) -> Kernel | None:
    """The matmul family on a root that is `product` of two operands of the kernel.

    `matrices` is for a rhs that is read packed; None reads it as it lies. The
    result is None where no layout of the family fits.
    """
    dtype = computed_in(root.types[0].dtype)
    layout = "packed" if matrices is not None else _layout(product)
    if layout is None or dtype not in DTYPES or root.types[0].size == 0:
        return None
    functions = functions_behind(fusion.body, root)
    spec = _spec(product, layout, dtype, functions, {})
    tile = choose_matmul(spec, target)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        axes = (*product.batch, product.m, product.n)
        a = _view(io, slots[0], [ax.lhs for ax in (*product.batch, product.m, product.k)])
        if layout == "packed":
            b = _view(io, slots[1], _packed_strides(product, tile.nr))
        else:
            last = (product.k, product.n) if layout == "rows" else (product.n, product.k)
            strides = [ax.rhs for ax in (*product.batch, *last)]
            b = _view(io, slots[1], [*strides[:-1], 1])

        def finish(index: Sequence[Extent], value: Expr, lanes: int) -> None:
            with epilogue.emitter.space.rewound(), epilogue.emitter.vector(lanes) as lane:
                at: list[DimLike] = [0] * root.types[0].rank
                for axis, i in zip(axes, index, strict=True):
                    position = epilogue.emitter.bound(i, 0, axis.extent - 1)
                    position = position + lane if axis is product.n else position
                    spread(position, axis, root.types[0].shape, at)
                epilogue.store(at, value)

        emit_matmul(
            _spec(product, layout, dtype, functions, io.dims),
            target,
            a,
            b,
            finish,
            tile=tile,
            scratch=io.scratch,
            rolled=epilogue.long,
        )

    packing = {}
    if matrices is not None:
        to_matrices = matrices.write
        packing[slots[1]] = Packing.written(
            f"{matrices.name}/{tile.nr}",
            lambda b, x: write_matmul(b, to_matrices(b, x), tile.nr),
        )
    return Kernel("matmul", emit, scratch_bytes(spec, target), dtype, packing)


def operand_slots(fusion: Fusion, root: Node) -> tuple[int, int] | None:
    """Which operands of the kernel a root's two operands are, if both are."""
    slots = {node.values[0]: slot for slot, node in enumerate(fusion.body.inputs)}
    lhs, rhs = root.operands
    return (slots[lhs], slots[rhs]) if lhs in slots and rhs in slots else None


def computed_in(dtype: DType) -> str:
    """The type in which a family sums: float32 for half precision."""
    return "float32" if dtype in (DType.BF16, DType.F16) else str(dtype.numpy)


def _packed_strides(product: Product, nr: int) -> list[int]:
    """Strides of [batch..., panel, k, column]; batch loops of the lhs alone repeat the weights."""
    k, n = product.k.extent, product.n.extent
    assert isinstance(k, int) and isinstance(n, int)
    panel = k * nr
    matrix = -(-n // nr) * panel
    strides = []
    for axis in product.batch:
        assert isinstance(axis.rhs, int) and axis.rhs % (k * n) == 0
        strides.append(axis.rhs // (k * n) * matrix)
    return [*strides, panel, nr, 1]


def _layout(product: Product) -> str | None:
    """How a run-time rhs lies: rows of B or columns of B contiguous."""
    if product.n.rhs == 1 or product.n.extent == 1:
        return "rows"
    if product.k.rhs == 1 or product.k.extent == 1:
        return "columns"
    return None


def _spec(
    product: Product, layout: str, dtype: str, functions: int, env: Mapping[str, Any]
) -> MatmulSpec:
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
        functions,
    )


def _view(io: KernelIO, slot: int, strides: Sequence[DimLike]) -> View:
    memory = io.operands[slot]
    along = tuple(dim_expr(s, io.dims) for s in strides)
    return View(memory.buffer, memory.dtype, along, memory.offset)
