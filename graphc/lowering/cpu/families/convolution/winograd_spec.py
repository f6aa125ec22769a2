"""What a Winograd convolution is, whether it pays, how it is cut up, and how its weights are packed.

A 3x3 convolution with strides of 1 computes ``m x m`` outputs from ``n x n`` inputs, ``n = m + 2``, as
``Y = A^T [(G g G^T) * (B^T d B)] A`` (Winograd 1980; Lavin and Gray 2016, "Fast Algorithms for Convolutional
Neural Networks"): ``n * n`` products instead of ``9 * m * m``, each of which is a matrix product over tiles and
channels. The matrices are Cook-Toom's for the points 0, infinity and pairs of either sign.

The pairs decide the rounding. F(4x4) with the usual 1 and 2 has a maximum error of 7e-6 of the largest result at 256
channels; with 3/4 and 3/2, whose powers are near to 1 and exact in f32, 2e-6. F(2x2) has 6e-7, and a direct
convolution 2e-7.

The loops are in :mod:`graphc.lowering.cpu.families.convolution.winograd`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from graphc.lowering.cpu.emit import Extent, ceil_div, product, static
from graphc.lowering.cpu.families.convolution.direct import ConvSpec
from graphc.lowering.cpu.families.dense.spec import register_rows
from graphc.lowering.cpu.features import CpuTarget

__all__ = [
    "POINTS",
    "WinogradTile",
    "choose_winograd",
    "cut_winograd",
    "even_odd",
    "pack_winograd",
    "scratch_bytes",
    "transform_weights",
]

POINTS: dict[int, tuple[Fraction, ...]] = {
    2: (Fraction(1),),
    4: (Fraction(3, 4), Fraction(3, 2)),
}
"""Outputs of a tile along one side -> the positive points; see the top of this file."""

PAD = 16
"""Elements between planes and between tiles: distances of a power of two would share cache sets."""

# Weights up to this size stay in a core's second-level cache beside a block.
_NEAR_BYTES = 1_000_000
# Regions of scratch memory, and so the most tasks that run at once; and what they may take together.
_SLOTS, _SCRATCH_BYTES = 32, 48 << 20


@dataclass(frozen=True)
class WinogradTile:
    """How a Winograd convolution is cut up.

    Attributes:
        m: outputs of a tile along each side, 2 or 4.
        block: tiles that are transformed together, the rows of each product.
        blocks: blocks of an image, or of the whole batch where ``across``.
        across: whether a block may hold tiles of several images.
        rows: tiles in a register tile of a product.
        nr: output channels of a panel of weights.
        lanes: elements of one vector; divides ``nr``.
        slots: regions of scratch memory.
    """

    m: int
    block: int
    blocks: int
    across: bool
    rows: int
    nr: int
    lanes: int
    slots: int

    @property
    def n(self) -> int:
        """Inputs of a tile along each side."""
        return self.m + 2

    def inputs(self, channels: int) -> int:
        """Elements of a block's transformed input: tile, plane, channel."""
        return self.block * (self.n**2 * (channels + PAD) + PAD)

    @property
    def products(self) -> int:
        """Elements of a block's products: tile, plane, column."""
        return self.block * (self.n**2 * self.nr + PAD)

    def slot(self, channels: int) -> int:
        """Elements of one region of scratch memory."""
        return self.inputs(channels) + self.products


def tiles_of(spec: ConvSpec, m: int) -> tuple[int, int] | None:
    """Tiles along H and W, the last ones moved back inside; None where an image is smaller than a tile."""
    sides = [static(extent) for extent in spec.output]
    if any(side is None or side < m for side in sides):
        return None
    height, width = (-(-side // m) for side in sides if side is not None)
    return height, width


def choose_winograd(spec: ConvSpec, target: CpuTarget) -> WinogradTile | None:
    """The cheapest way to compute ``spec`` by tiles, or None where computing it directly is cheaper.

    Costs count vector multiply-adds. A direct convolution reaches 0.85 of the peak and products 0.75; a transform takes
    4.5 for each of its loads and stores. A vector of weights from beyond the second-level cache costs a direct
    convolution 12 more, and a product 5, but never less than 43 in all (measured, see ``benchmarks/NOTES.md``).
    """
    applies = spec.kernel == (3, 3) and set(spec.strides) == set(spec.dilation) == {1}
    if not applies or spec.groups != 1 or spec.dtype != "float32" or not target.fma:
        return None
    lanes = target.lanes(spec.dtype)
    if spec.channels < lanes or spec.features < lanes:
        return None
    best, least = None, _direct_cost(spec, lanes)
    for m in POINTS:
        tile = cut_winograd(spec, target, m)
        if tile is not None and (cost := _cost(spec, tile)) < least:
            best, least = tile, cost
    return best


def cut_winograd(spec: ConvSpec, target: CpuTarget, m: int) -> WinogradTile | None:
    """Register tiles of two vectors, which read the fewest weights again, and blocks of a few of them."""
    grid = tiles_of(spec, m)
    if grid is None:
        return None
    lanes = target.lanes(spec.dtype)
    vectors = min((2, 3, 1), key=lambda v: -(-spec.features // (v * lanes)) * v)
    rows = register_rows(target, vectors, plain=True)
    # Few channels: all of a block and its weights stay in the second-level cache. Many: weights do not.
    most = rows * (2 if spec.channels <= 512 else 4) * (2 if m == 2 else 1)
    batch, item = static(spec.batch), np.dtype(spec.dtype).itemsize
    tiles = math.prod(grid) * (batch or 1)
    blocks = max(1, round(tiles / most))
    draft = WinogradTile(
        m=m,
        block=-(-tiles // blocks),
        blocks=blocks,
        across=batch is not None,
        rows=rows,
        nr=vectors * lanes,
        lanes=lanes,
        slots=1,
    )
    room = max(1, _SCRATCH_BYTES // (draft.slot(spec.channels) * item))
    tasks = _SLOTS if batch is None else blocks * -(-spec.features // draft.nr)
    return replace(draft, slots=min(_SLOTS, room, tasks))


def _direct_cost(spec: ConvSpec, lanes: int) -> float:
    """Vector multiply-adds of the direct family."""
    height, width = (static(extent) or 0 for extent in spec.output)
    vectors = 9 * spec.channels * -(-spec.features // lanes)
    far = 0.0 if spec.weight_bytes <= _NEAR_BYTES else 12.0
    return vectors * ((static(spec.batch) or 1) * height * width / 0.85 + far)


def _cost(spec: ConvSpec, tile: WinogradTile) -> float:
    """The same of products and transforms."""
    planes = tile.n**2
    vectors = -(-spec.features // tile.nr) * tile.nr // tile.lanes
    times = tile.blocks * (1 if tile.across else static(spec.batch) or 1)
    weights = planes * spec.channels * vectors
    near = weights * tile.lanes * np.dtype(spec.dtype).itemsize <= _NEAR_BYTES
    each = tile.block / 0.75 if near else max(tile.block / 0.75, 38.0) + 5.0
    moved = spec.channels / tile.lanes + vectors
    return times * (weights * each + tile.block * moved * 4.5 * planes)


def even_odd(m: int) -> tuple[list[float], list[list[float]]]:
    """The input transform's polynomials in the square of the argument, lowest coefficient first.

    The product over all points, which makes the first and the last row, and for each pair the product over
    the others: its rows are ``even + p * odd`` and ``even - p * odd``.
    """
    squares = [p * p for p in POINTS[m]]

    def expand(roots: Sequence[Fraction]) -> list[float]:
        poly = [Fraction(1)]
        for root in roots:
            shifted = [Fraction(0), *poly]
            scaled = [*(root * c for c in poly), Fraction(0)]
            poly = [a - b for a, b in zip(shifted, scaled, strict=True)]
        return [float(c) for c in poly]

    others = [expand([s for j, s in enumerate(squares) if j != i]) for i in range(len(squares))]
    return expand(squares), others


def transform_weights(w: np.ndarray, m: int) -> np.ndarray:
    """Weights ``[O, C, 3, 3]`` as ``[n, n, C, O]``, computed in f64 and rounded once."""
    points = [Fraction(0), *(s * p for p in POINTS[m] for s in (1, -1))]
    rows = []
    for i, point in enumerate(points):
        others = math.prod((point - q for j, q in enumerate(points) if j != i), start=Fraction(1))
        rows.append([float(point**power / others) for power in range(3)])
    g = np.array([*rows, [0.0, 0.0, 1.0]])
    features, channels = w.shape[:2]
    # Rows of W first, then columns, each a product with all filters side by side.
    turned = np.ascontiguousarray(w.reshape(features, -1).T).reshape(channels, 9, features)
    filters = turned.transpose(1, 0, 2).astype(np.float64).reshape(3, -1)
    half = (g @ filters).reshape(len(g), 3, channels * features)
    transformed: np.ndarray = np.matmul(g, half).astype(w.dtype)
    return transformed.reshape(len(g), len(g), channels, features)


def pack_winograd(w: np.ndarray, m: int, nr: int) -> np.ndarray:
    """Weights ``[O, C, 3, 3]`` as ``[ceil(O / nr), n * n, C, nr]``, transformed; zero beyond channel O."""
    features, channels = w.shape[:2]
    planes, panels = (m + 2) ** 2, -(-features // nr)
    packed = np.zeros((planes, channels, panels * nr), w.dtype)
    packed[..., :features] = transform_weights(w, m).reshape(planes, channels, features)
    packed = packed.reshape(planes, channels, panels, nr)
    return np.ascontiguousarray(packed.transpose(2, 0, 1, 3))


def scratch_bytes(spec: ConvSpec, tile: WinogradTile) -> int:
    """Bytes of scratch memory of a convolution."""
    return tile.slots * tile.slot(spec.channels) * np.dtype(spec.dtype).itemsize


def tasks_of(spec: ConvSpec, tile: WinogradTile) -> tuple[Extent, int, int]:
    """The extents of the tasks: images (1 where a block holds several), blocks of an image, panels."""
    return 1 if tile.across else spec.batch, tile.blocks, -(-spec.features // tile.nr)


def tasks_per_slot(spec: ConvSpec, tile: WinogradTile) -> Extent:
    """Tasks that one region of scratch memory serves in a row."""
    return ceil_div(product(tasks_of(spec, tile)), tile.slots)
