"""Weight layouts of the families, written in graph ops.

A layout is said once. Weights known when a module is built go through the reference interpreter; weights that change
while it runs (training) are packed by a kernel made of the same ops.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import GraphBuilder, Value
from graphc.lowering.cpu.kernel import Array
from graphc.lowering.packing import Packing
from graphc.ops import Pad, Reshape, Transpose

__all__ = [
    "pack_conv",
    "pack_depthwise",
    "pack_matmul",
    "write_conv",
    "write_depthwise",
    "write_matmul",
]


def write_matmul(b: GraphBuilder, x: Value, nr: int) -> Value:
    """Weights ``[..., K, N]`` in panels ``[..., ceil(N / nr), K, nr]``, zero beyond column N."""
    *batch, k, n = _shape(b, x)
    panels = -(-n // nr)
    split = _reshape(b, _grown(b, x, -1, panels * nr), (*batch, k, panels, nr))
    rank = len(batch)
    return b(Transpose((*range(rank), rank + 1, rank, rank + 2)), split)


def write_conv(b: GraphBuilder, w: Value, nr: int, groups: int) -> Value:
    """Weights ``[OC, IC / groups, *kernel]`` as ``[groups, OC / groups / nr, *kernel, IC, nr]``.

    Output channels beyond the last one of a group are zero.
    """
    features, channels, *kernel = _shape(b, w)
    per_group = features // groups
    panels = -(-per_group // nr)
    grouped = _reshape(b, w, (groups, per_group, channels, *kernel))
    split = _reshape(b, _grown(b, grouped, 1, panels * nr), (groups, panels, nr, channels, *kernel))
    return b(Transpose((0, 1, *range(4, 4 + len(kernel)), 3, 2)), split)


def write_depthwise(b: GraphBuilder, w: Value) -> Value:
    """Weights ``[C, 1, *kernel]`` as ``[*kernel, C]``."""
    channels, _, *kernel = _shape(b, w)
    flat = _reshape(b, w, (channels, *kernel))
    return b(Transpose((*range(1, len(kernel) + 1), 0)), flat)


def pack_matmul(b: Array, nr: int) -> Array:
    """`write_matmul` of an array."""
    return Packing.written("", lambda g, x: write_matmul(g, x, nr)).pack(b)


def pack_conv(w: Array, nr: int, groups: int = 1) -> Array:
    """`write_conv` of an array."""
    return Packing.written("", lambda g, x: write_conv(g, x, nr, groups)).pack(w)


def pack_depthwise(w: Array) -> Array:
    """`write_depthwise` of an array."""
    return Packing.written("", write_depthwise).pack(w)


def _shape(b: GraphBuilder, x: Value) -> list[int]:
    """The shape of a weight, which has no named dims."""
    return [d if isinstance(d, int) else _open(d) for d in b.type_of(x).shape]


def _open(dim: object) -> int:
    raise ValueError(f"a packed operand has the open dimension {dim}")


def _reshape(b: GraphBuilder, x: Value, shape: Sequence[int]) -> Value:
    return b(Reshape(tuple(shape)), x)


def _grown(b: GraphBuilder, x: Value, axis: int, size: int) -> Value:
    """x with zeros behind the end of one axis, up to `size`."""
    shape = _shape(b, x)
    high = [0] * len(shape)
    high[axis] = size - shape[axis]
    if not any(high):
        return x
    none = (0,) * len(shape)
    return b(Pad(none, tuple(high), none, 0.0), x)
