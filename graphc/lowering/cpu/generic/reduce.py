"""Reductions whose result is the output: pooling over space, sums over features, argmax, any fallback.

Vectors run along the output where memory does (a mean over height and width, channels last), and
along the reduced dimensions otherwise. A body of any op with a `compute` is taken, so this is also
the family of last resort for contractions and windows no other family wants.
"""

from __future__ import annotations

from graphc.ir.op import Op, Pattern
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.nest import emit_nest
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.generic.trace import expanded
from graphc.ops import Fusion

__all__ = ["accepts", "emit", "expanded"]


def _computable(op: Op) -> bool:
    return op.name == "input" or type(op).compute is not Op.compute


def accepts(fusion: Fusion, target: CpuTarget) -> bool:
    """True when every op of the body, in primitives, can be computed element by element."""
    body = expanded(fusion.body)
    one_result = all(len(node.types) == 1 for node in body.nodes)
    return one_result and all(
        _computable(node.op) and node.op.pattern is not Pattern.REGION for node in body.nodes
    )


def emit(fusion: Fusion, target: CpuTarget, io: KernelIO) -> None:
    """Writes the loops into the open kernel frame."""
    emit_nest(expanded(fusion.body), target, io)
