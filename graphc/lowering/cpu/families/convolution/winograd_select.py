"""Selecting Winograd convolutions: 3x3 filters that are known when the module is built, where the tiles pay."""

from __future__ import annotations

import numpy as np

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Node
from graphc.lowering.cpu.emit import View
from graphc.lowering.cpu.families.convolution.direct import ConvSpec
from graphc.lowering.cpu.families.convolution.winograd import emit_winograd
from graphc.lowering.cpu.families.convolution.winograd_spec import (
    choose_winograd,
    pack_winograd,
    scratch_bytes,
)
from graphc.lowering.cpu.families.dense.select import operand_slots
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.strides import strides_of
from graphc.lowering.packing import Packing
from graphc.ops import ConvGeneral, Fusion


def select_winograd(
    fusion: Fusion, root: Node, static: frozenset[int], target: CpuTarget
) -> Kernel | None:
    """A kernel of transformed tiles for a fusion whose root is a `conv_general`, or None where it does not pay.

    The input is channels last with its borders stored, as the passes leave it, all of it f32; the weight is in
    `static`, since it is transformed when the module is built.
    """
    op = root.op
    assert isinstance(op, ConvGeneral)
    slots = operand_slots(fusion, root)
    if slots is None or slots[1] not in static or root.types[0].size == 0:
        return None
    x, w = (fusion.body.type_of(v) for v in root.operands)
    types = {x.dtype, w.dtype, root.types[0].dtype}
    inside = all(n <= 0 for pair in op.padding for n in pair) and set(op.lhs_dilation) == {1}
    if types != {DType.F32} or not (op.channels_last and inside):
        return None
    batch, *output, _ = root.types[0].shape
    features, channels, *kernel = (d for d in w.shape if isinstance(d, int))

    def spec(n: DimLike) -> ConvSpec:
        return ConvSpec(
            n,
            tuple(output),
            channels * op.groups,
            features,
            tuple(kernel),
            op.strides,
            op.rhs_dilation,
            op.groups,
        )

    tile = choose_winograd(spec(batch), target)
    if tile is None:
        return None

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        data, weights = (io.operands[slot] for slot in slots)
        strides = tuple(dim_expr(s, io.dims) for s in strides_of(x.shape))
        image = View(data.buffer, data.dtype, strides, data.offset)
        packed = strides_of((-(-features // tile.nr), tile.n**2, channels, tile.nr))
        assert io.scratch is not None
        emit_winograd(
            spec(dim_expr(batch, io.dims)),
            image.shifted((0, *(-low for low, _ in op.padding), 0)),
            View(weights.buffer, weights.dtype, packed, weights.offset),
            epilogue.finish,
            io.scratch,
            tile=tile,
        )

    def pack(array: np.ndarray) -> np.ndarray:
        return pack_winograd(array, tile.m, tile.nr)

    packing = Packing(f"winograd/{tile.m}/{tile.nr}", pack)
    return Kernel(
        "winograd", emit, scratch_bytes(spec(batch), tile), "float32", {slots[1]: packing}
    )
