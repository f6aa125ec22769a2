"""Which family takes a fusion on a GPU: the first in a fixed order that accepts it; the nest takes anything."""

from __future__ import annotations

from graphc.lowering.cuda.attention.flash import select_flash
from graphc.lowering.cuda.attention.gradient import select_attention_gradient
from graphc.lowering.cuda.attention.plain import select_attention
from graphc.lowering.cuda.generic.columns import select_columns
from graphc.lowering.cuda.generic.nest import nest
from graphc.lowering.cuda.generic.scatter import select_scatter
from graphc.lowering.cuda.generic.sort import select_sort
from graphc.lowering.cuda.hopper.convolution import select_warp_group_convolution
from graphc.lowering.cuda.hopper.product import select_warp_group_product
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.pooling.gradient import select_pooling_gradient
from graphc.lowering.cuda.products.convolution import select_convolution
from graphc.lowering.cuda.products.dense import select_product
from graphc.lowering.cuda.products.weight_gradient import select_weight_gradient
from graphc.lowering.cuda.regions.choice import select_cond
from graphc.lowering.cuda.regions.loop import select_scan
from graphc.ops import (
    Attention,
    AttentionGradient,
    Cond,
    ConvGeneral,
    ConvWeightGradient,
    DotGeneral,
    Fusion,
    MaxPoolGradient,
    Scan,
)


def select(fusion: Fusion, static: frozenset[int], setting: Setting) -> Kernel:
    """The kernel for a fusion.

    `static` are the operand slots known when the module is built.
    """
    (last, *_) = reversed(fusion.body.nodes)
    if isinstance(last.op, Scan):
        return select_scan(last.op, static, setting, select)
    if isinstance(last.op, Cond):
        return select_cond(last.op, static, setting, select)
    return (
        _select_root(fusion, static, setting)
        or select_scatter(fusion)
        or select_sort(fusion)
        or select_columns(fusion)
        or nest(fusion.body)
    )


def _select_root(fusion: Fusion, static: frozenset[int], setting: Setting) -> Kernel | None:
    for node in fusion.body.nodes:
        if isinstance(node.op, Attention):
            return select_flash(fusion, node, setting) or select_attention(fusion, node)
        if isinstance(node.op, AttentionGradient):
            return select_attention_gradient(fusion, node, setting)
        if isinstance(node.op, DotGeneral):
            groups = select_warp_group_product(fusion, node, static, setting)
            return groups or select_product(fusion, node, static, setting.precision)
        if isinstance(node.op, ConvWeightGradient):
            return select_weight_gradient(fusion, node, setting.precision)
        if isinstance(node.op, MaxPoolGradient):
            return select_pooling_gradient(fusion, node, setting)
        if isinstance(node.op, ConvGeneral):
            groups = select_warp_group_convolution(fusion, node, setting)
            return groups or select_convolution(fusion, node, setting)
    return None
