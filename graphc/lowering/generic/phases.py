"""Convolutions over inputs with holes, phase by phase: how cotangents go back through strides.

Between neighbouring elements of the input lie `holes - 1` zeros. Output positions with the same remainder modulo
`holes` (a phase) meet elements at the same taps, evenly spaced: every phase is a convolution of stride 1 over the input
without its holes, with every n-th tap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Taps", "taps_of"]


@dataclass(frozen=True)
class Taps:
    """The taps of one phase along a dimension: `first + j * step` for `j < count`.

    Output `phase + q * holes` meets, at tap `j`, element `q + shift + j * reach`.
    """

    first: int
    count: int
    step: int
    shift: int
    reach: int


def taps_of(phase: int, kernel: int, dilation: int, holes: int, before: int) -> Taps:
    """Which of `kernel` taps, `dilation` apart, fall on elements in one phase; `before` zeros lie before the first."""
    common = math.gcd(holes, dilation)
    step = holes // common
    hits = [k for k in range(kernel) if (phase + k * dilation - before) % holes == 0]
    if not hits:
        return Taps(0, 0, step, 0, 1)
    shift = (phase + hits[0] * dilation - before) // holes
    return Taps(hits[0], len(hits), step, shift, dilation // common)
