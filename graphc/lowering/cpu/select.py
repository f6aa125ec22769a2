"""Which family takes a fusion: the first in a fixed order that accepts it; the generic loop nest takes anything."""

from __future__ import annotations

from functools import partial

from graphc.ir.graph import Node
from graphc.ir.op import Pattern
from graphc.lowering.cpu.choice import select_cond
from graphc.lowering.cpu.families.attention.select import select_attention
from graphc.lowering.cpu.families.convolution.expand_select import convolutions, select_expand
from graphc.lowering.cpu.families.convolution.long_products import select_long_product
from graphc.lowering.cpu.families.convolution.select import select_convolution
from graphc.lowering.cpu.families.convolution.weight_select import select_weight_gradient
from graphc.lowering.cpu.families.convolution.winograd_select import select_winograd
from graphc.lowering.cpu.families.dense.blocked_select import select_blocked_product
from graphc.lowering.cpu.families.dense.select import select_product
from graphc.lowering.cpu.families.pooling.gradient_select import select_pooling_gradient
from graphc.lowering.cpu.families.pooling.select import select_pooling
from graphc.lowering.cpu.families.recurrence.kernel import select_cell
from graphc.lowering.cpu.families.tile.select import select_tiles
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic import columns, map, reduce, rows, scatter
from graphc.lowering.cpu.generic.sort import select_sort
from graphc.lowering.cpu.kernel import Kernel
from graphc.lowering.cpu.loop import select_scan
from graphc.lowering.cpu.sizes import of_any_size
from graphc.ops import (
    Attention,
    AvgPool,
    Cond,
    ConvGeneral,
    ConvWeightGradient,
    DotGeneral,
    Fusion,
    MaxPool,
    MaxPoolGradient,
    Scan,
    WindowSum,
)

_ROOTS = (Pattern.CONTRACT, Pattern.WINDOW)


def select(fusion: Fusion, static: frozenset[int], target: CpuTarget) -> Kernel:
    """The kernel for a fusion; `static` are the operand slots known when the module is built."""
    kernel = _select_root(fusion, static, target)
    if kernel is not None:
        return kernel
    scattered = scatter.root_of(fusion)
    if scattered is not None:
        return scatter.kernel(fusion, scattered, target)
    sort = select_sort(fusion, target)
    if sort is not None:
        return sort
    if columns.accepts(fusion, target):
        return columns.kernel(fusion, target)
    if map.accepts(fusion, target):
        return _map(fusion, target)
    for name, family in (("rows", rows), ("reduce", reduce)):
        if family.accepts(fusion, target):
            return Kernel(name, partial(family.emit, fusion, target))
    raise ValueError(f"no kernel family takes {fusion.kind}")


def _map(fusion: Fusion, target: CpuTarget) -> Kernel:
    """A map, and the same for any size where it is one of whole tensors."""
    general = of_any_size(fusion)
    if general is None:
        return Kernel("map", partial(map.emit, fusion, target))
    any_size = Kernel("map", partial(map.emit, general.fusion, target))
    return Kernel("map", partial(map.emit, fusion, target), general=(any_size, general))


def _select_root(fusion: Fusion, static: frozenset[int], target: CpuTarget) -> Kernel | None:
    (last, *_) = reversed(fusion.body.nodes)
    if isinstance(last.op, Scan):
        return select_cell(last.op, target) or select_scan(last.op, static, target, select)
    if isinstance(last.op, Cond):
        return select_cond(last.op, static, target, select)
    if len(convolutions(fusion.body)) > 1:
        return select_expand(fusion, static, target)
    root = root_of(fusion)
    if root is None:
        return None
    if isinstance(root.op, Attention):
        return select_attention(fusion, root, target)
    if isinstance(root.op, MaxPoolGradient):
        return select_pooling_gradient(fusion, root, target)
    if isinstance(root.op, (ConvGeneral, DotGeneral)):
        tiles = select_tiles(fusion, root, static, target)
        if tiles is not None:
            return tiles
    if isinstance(root.op, DotGeneral):
        blocked = select_blocked_product(fusion, root, static, target)
        long = blocked or select_long_product(fusion, root, static, target)
        return long or select_product(fusion, root, static, target)
    if isinstance(root.op, ConvGeneral):
        winograd = select_winograd(fusion, root, static, target)
        return winograd or select_convolution(fusion, root, static, target)
    if isinstance(root.op, ConvWeightGradient):
        return select_weight_gradient(fusion, root, target)
    if isinstance(root.op, (MaxPool, AvgPool, WindowSum)):
        return select_pooling(fusion, root, target)
    return None


def root_of(fusion: Fusion) -> Node | None:
    """The contraction, window, or composite with operands in memory a fusion is built around, if any."""
    for node in fusion.body.nodes:
        if node.op.pattern in _ROOTS or node.op.strided_operands:
            return node
    return None
