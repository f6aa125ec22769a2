"""Maps: bodies of elementwise and index ops, from a residual add to a padded concatenation.

Every output element is pulled through the body once, in vectors along the output's last loop, or
along the operands' where that is a transposition (see `schedule.py`).
"""

from __future__ import annotations

from graphc.ir.op import Pattern
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.nest import emit_nest
from graphc.lowering.cpu.io import KernelIO
from graphc.ops import Fusion

_PATTERNS = (Pattern.SOURCE, Pattern.ELEMENTWISE, Pattern.INDEX)


def accepts(fusion: Fusion, target: CpuTarget) -> bool:
    """True for bodies that neither reduce nor contract anything."""
    return all(node.op.pattern in _PATTERNS for node in fusion.body.nodes)


def emit(fusion: Fusion, target: CpuTarget, io: KernelIO) -> None:
    """Writes the loops into the open kernel frame."""
    emit_nest(fusion.body, target, io)
