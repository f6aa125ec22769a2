"""What every diagnostic code means: the texts behind ``graphc explain CODE``.

One file holds the codes of one range, as a table named ``CODES``; here they come together.

======  =============================================
E01xx   syntax
E02xx   shapes and types
E03xx   names and scopes
E04xx   arguments
E05xx   blocks, loops, limits, imports
E06xx   weights
E07xx   modules, run time, targets
E08xx   scans, choices at run time, gradients, training
E09xx   the text form of a graph
======  =============================================
"""

from __future__ import annotations

from graphc.codes import (
    arguments,
    blocks,
    conds,
    gradients,
    graph,
    names,
    scans,
    shapes,
    syntax,
    training,
    weights,
)
from graphc.codes.info import CodeInfo

__all__ = ["CODES", "CodeInfo"]

CODES: dict[str, CodeInfo] = {
    **syntax.CODES,
    **shapes.CODES,
    **names.CODES,
    **arguments.CODES,
    **blocks.CODES,
    **training.CODES,
    **weights.CODES,
    **scans.CODES,
    **conds.CODES,
    **gradients.CODES,
    **graph.CODES,
}
"""Every code that graphc can report, by code."""
