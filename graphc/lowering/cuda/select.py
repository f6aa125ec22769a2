"""Which family takes a fusion on a GPU: the first in a fixed order that accepts it; the nest takes anything."""

from __future__ import annotations

from graphc.artifact.cuda.target import CudaTarget
from graphc.lowering.cuda.attention import select_attention
from graphc.lowering.cuda.io import Kernel
from graphc.lowering.cuda.loop import select_scan
from graphc.lowering.cuda.nest import nest
from graphc.ops import Attention, Fusion, Scan


def select(fusion: Fusion, static: frozenset[int], target: CudaTarget) -> Kernel:
    """The kernel for a fusion; `static` are the operand slots known when the module is built."""
    (last, *_) = reversed(fusion.body.nodes)
    if isinstance(last.op, Scan):
        return select_scan(last.op, static, target, select)
    for node in fusion.body.nodes:
        if isinstance(node.op, Attention):
            return select_attention(fusion, node) or nest(fusion.body)
    return nest(fusion.body)
