"""Rows: reductions whose results are used along the very dimensions they reduced (softmax, norms).

Several passes over a row that stays in cache: each reduction is a pass of its own, computed once a
row, and the last pass writes the output. A value that two passes need and that is expensive (the
exponentials of a softmax) waits in the output's memory. Which dimensions are the row, the body says:
trailing ones (layer norm), a middle one (softmax over channels: vectors then run along the last
dimension, many rows at once), or several apart (group norm, channels last).
"""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.nest import emit_nest
from graphc.lowering.cpu.reduce import accepts as computable
from graphc.lowering.cpu.reduce import expanded
from graphc.lowering.cpu.schedule import schedule
from graphc.ops import Fusion


def _is_row(body: Graph, target: CpuTarget) -> bool:
    return any(schedule(body, [value], target).row for _, value in body.outputs)


def accepts(fusion: Fusion, target: CpuTarget) -> bool:
    """True when a reduction's result is the same for a whole row of outputs."""
    return computable(fusion, target) and _is_row(expanded(fusion.body), target)


def emit(fusion: Fusion, target: CpuTarget, io: KernelIO) -> None:
    """Writes the loops into the open kernel frame."""
    emit_nest(expanded(fusion.body), target, io)
