"""Selecting and emitting the gradients of convolutions by their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.ir.graph import Node
from graphc.lowering.cpu.emit import Expr, Extent, View
from graphc.lowering.cpu.families.convolution.depthwise import DepthwiseSpec
from graphc.lowering.cpu.families.convolution.depthwise_weight import (
    depthwise_weight_scratch,
    emit_depthwise_weight,
)
from graphc.lowering.cpu.families.convolution.weight import emit_conv_weight
from graphc.lowering.cpu.families.convolution.weight_spec import (
    ConvWeightSpec,
    choose_conv_weight,
    conv_weight_scratch,
)
from graphc.lowering.cpu.families.dense.select import DTYPES, operand_slots
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.index import unflatten
from graphc.lowering.generic.strides import strides_of
from graphc.ops import ConvWeightGradient, Fusion


def select_weight_gradient(fusion: Fusion, root: Node, target: CpuTarget) -> Kernel | None:
    """A kernel for a fusion whose root is a `conv_weight_gradient` that reads inside its operands, else None.

    The passes have made it so: channels last, borders stored (no positive padding).
    """
    op = root.op
    assert isinstance(op, ConvWeightGradient)
    slots = operand_slots(fusion, root)
    dtype = str(root.types[0].dtype.numpy)
    if slots is None or dtype not in DTYPES or root.types[0].size == 0 or not op.channels_last:
        return None
    if any(n > 0 for pair in op.padding for n in pair):
        return None
    x, dy = (fusion.body.type_of(v).shape for v in root.operands)
    batch, *spatial, features = dy
    output = tuple(
        d - low - high
        for d, (low, high) in zip(spatial, op.crop, strict=True)
        if isinstance(d, int)
    )
    channels = x[-1]
    if len(output) < len(spatial) or 0 in output:
        return None
    if not (isinstance(channels, int) and isinstance(features, int)):
        return None

    def spec(batch: Extent) -> ConvWeightSpec:
        return ConvWeightSpec(
            batch,
            output,
            channels,
            features,
            op.kernel,
            op.strides,
            op.dilation,
            op.groups,
            dtype,
        )

    if op.groups == channels == features:
        return _depthwise(fusion, root, slots, target)
    tile, kernel = choose_conv_weight(spec(batch), target), op.kernel
    inputs = channels // op.groups

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        e = epilogue.emitter

        class Stores:
            """Positions in the result: rows and columns of tiles are channels and taps."""

            def run(self, feature: Extent, entry: Extent, value: Expr, lanes: int) -> None:
                with e.space.rewound(), e.vector(lanes) as lane:
                    sizes = (inputs, *kernel)
                    at = e.bound(entry, 0, math.prod(sizes) - 1) + lane
                    epilogue.store(
                        [e.bound(feature, 0, features - 1), *unflatten(at, sizes)], value
                    )

            def fetch(self, feature: Extent, entry: Extent) -> None:
                with e.space.rewound():
                    at = unflatten(
                        e.bound(entry, 0, inputs * math.prod(kernel) - 1), (inputs, *kernel)
                    )
                    epilogue.fetch([e.bound(feature, 0, features - 1), *at])

            def across(
                self,
                feature: Extent,
                row: Extent,
                taps: Sequence[Extent],
                value: Expr,
                lanes: int,
            ) -> None:
                with e.space.rewound(), e.vector(lanes) as lane:
                    at = e.bound(feature, 0, features - 1) + lane
                    entry = e.bound(row, 0, tile.rows - 1)
                    tap = [e.bound(t, 0, k - 1) for t, k in zip(taps, tile.taps, strict=True)]
                    if tile.merged:
                        last, entry = unflatten(entry, (kernel[-1], inputs))
                        tap.append(last)
                    epilogue.store([at, entry, *tap], value)

        n = dim_expr(batch, io.dims)
        data, cotangent = _inside(fusion, root, slots, io)
        emit_conv_weight(spec(n), tile, data, cotangent, Stores(), io.scratch)

    return Kernel("conv_weight", emit, conv_weight_scratch(spec(batch), tile), dtype)


def _depthwise(fusion: Fusion, root: Node, slots: tuple[int, int], target: CpuTarget) -> Kernel:
    """Every channel with its own weights."""
    op, dtype = root.op, str(root.types[0].dtype.numpy)
    assert isinstance(op, ConvWeightGradient)
    batch, *spatial, channels = fusion.body.type_of(root.operands[1]).shape
    borders = zip(spatial, op.crop, strict=True)
    output = tuple(size - (low + high) for size, (low, high) in borders)
    assert isinstance(channels, int)

    def spec(batch: Extent) -> DepthwiseSpec:
        return DepthwiseSpec(batch, output, channels, op.kernel, op.strides, op.dilation, dtype)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        e = epilogue.emitter

        def finish(taps: Sequence[Extent], channel: Extent, value: Expr, lanes: int) -> None:
            with e.space.rewound(), e.vector(lanes) as lane:
                at = e.bound(channel, 0, channels - 1) + lane
                tap = [e.bound(t, 0, k - 1) for t, k in zip(taps, op.kernel, strict=True)]
                epilogue.store([at, 0, *tap], value)

        data, cotangent = _inside(fusion, root, slots, io)
        assert io.scratch is not None
        n = dim_expr(batch, io.dims)
        emit_depthwise_weight(spec(n), target, data, cotangent, finish, io.scratch)

    return Kernel("depthwise_weight", emit, depthwise_weight_scratch(spec(batch)), dtype)


def _inside(fusion: Fusion, root: Node, slots: tuple[int, int], io: KernelIO) -> tuple[View, View]:
    """x from its first window on, and the cotangent without its border."""
    op = root.op
    assert isinstance(op, ConvWeightGradient)
    starts = ([-low for low, _ in op.padding], [low for low, _ in op.crop])
    views = []
    for slot, value, start in zip(slots, root.operands, starts, strict=True):
        type, memory = fusion.body.type_of(value), io.operands[slot]
        strides = tuple(dim_expr(s, io.dims) for s in strides_of(type.shape))
        whole = View(memory.buffer, str(type.dtype.numpy), strides, memory.offset)
        views.append(whole.shifted((0, *start, 0)))
    data, cotangent = views
    return data, cotangent
