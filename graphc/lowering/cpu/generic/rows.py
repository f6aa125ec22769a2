"""Rows: reductions whose results are used along the very dimensions they reduced (softmax, norms).

Several passes over a row that stays in cache, the last of which writes the output. Which dimensions
are the row, the body says: trailing ones (layer norm), a middle one (softmax over channels: vectors
then run along the last dimension, many rows at once), or several apart (group norm, channels last).
The loops are those of `nest.py`, with what `hoist.py` finds computed once a row.
"""

from __future__ import annotations

from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic import reduce
from graphc.lowering.cpu.generic.schedule import schedule
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.generic.trace import expanded
from graphc.ops import Fusion


def accepts(fusion: Fusion, target: CpuTarget) -> bool:
    """True when some reduction's result is the same for a whole row of outputs."""
    if not reduce.accepts(fusion, target):
        return False
    body = expanded(fusion.body)
    outputs = [v for _, v in body.outputs if 0 not in body.type_of(v).shape]
    return any(schedule(body, [value], target).row for value in outputs)


def emit(fusion: Fusion, target: CpuTarget, io: KernelIO) -> None:
    """Writes the loops into the open kernel frame."""
    reduce.emit(fusion, target, io)
