"""Colours, fonts and sizes of the pictures.

One hue per op family: a light fill that prints well on white, a dark stroke of the same hue that stays apart from its
neighbours in greyscale, and dark text on all of them (contrast above 7:1).
"""

from __future__ import annotations

from typing import NamedTuple


class Paint(NamedTuple):
    """Fill and stroke of a box."""

    fill: str
    stroke: str


FONT = "Helvetica,Arial,Liberation Sans,DejaVu Sans,sans-serif"
TITLE_SIZE = 18
NAME_SIZE = 11
DETAIL_SIZE = 9
EDGE_SIZE = 8.5

INK = "#0f172a"
MUTED = "#475569"
EDGE = "#64748b"
FAILED = Paint("#fee2e2", "#dc2626")
PORT = Paint("#1e293b", "#1e293b")  # graph inputs and outputs, with white text
BLOCK = Paint("#f8fafc", "#64748b")  # a closed block: many families inside
CLUSTER_FILLS = ("#f8fafc", "#f1f5f9", "#e9eef5")  # by nesting, cycling
CLUSTER_STROKE = "#cbd5e1"
BACKWARD = Paint("#fff7ed", "#c2410c")  # a closed gradient
BACKWARD_FILLS = ("#fff7ed", "#fff1e0", "#ffead1")  # an open one and the blocks in it
BACKWARD_STROKE = "#fdba74"

FAMILIES: dict[str, tuple[str, Paint]] = {
    "conv": ("convolution", Paint("#dbeafe", "#1d4ed8")),
    "dot": ("matrix product", Paint("#ede9fe", "#6d28d9")),
    "attention": ("attention", Paint("#fce7f3", "#be185d")),
    "activation": ("activation", Paint("#fef3c7", "#b45309")),
    "norm": ("normalisation", Paint("#ccfbf1", "#0f766e")),
    "window": ("pooling", Paint("#dcfce7", "#15803d")),
    "reduce": ("reduction", Paint("#f5ebe0", "#7c4a21")),
    "elementwise": ("elementwise", Paint("#ecfccb", "#4d7c0f")),
    "index": ("lookup", Paint("#cffafe", "#0e7490")),
    "resize": ("resampling", Paint("#fae8ff", "#a21caf")),
    "shape": ("shape", Paint("#f1f5f9", "#475569")),
    "source": ("literal", Paint("#ffffff", "#475569")),
}
"""Family -> what the legend calls it, and its colours; the legend lists families in this order."""

OTHER = Paint("#fafaf9", "#57534e")


def paint(family: str) -> Paint:
    """The colours of a family; unknown families share a neutral one."""
    return FAMILIES[family][1] if family in FAMILIES else OTHER


def legend_name(family: str) -> str:
    """What the legend calls a family."""
    return FAMILIES[family][0] if family in FAMILIES else family
