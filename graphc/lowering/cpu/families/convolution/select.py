"""Selecting and emitting convolutions: matrix product, depthwise or direct, all channels last."""

from __future__ import annotations

from graphc.ir.dim import DimLike, product
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.lowering.cpu.emit import View
from graphc.lowering.cpu.families.convolution.depthwise import DepthwiseSpec, emit_depthwise
from graphc.lowering.cpu.families.convolution.direct import ConvSpec, choose_conv, emit_conv
from graphc.lowering.cpu.families.convolution.transposed import (
    HoledConvSpec,
    choose_holed_conv,
    emit_holed_conv,
)
from graphc.lowering.cpu.families.dense.select import DTYPES, Matrices, computed_in, product_kernel
from graphc.lowering.cpu.families.epilogue import Epilogue, functions_behind
from graphc.lowering.cpu.families.packing import write_conv, write_depthwise
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.strides import Axis, Product, stored_slots, strides_of
from graphc.lowering.packing import Packing
from graphc.ops import ConvGeneral, Fusion, Reshape, Transpose


def select_convolution(
    fusion: Fusion, root: Node, static: frozenset[int], target: CpuTarget
) -> Kernel | None:
    """A kernel for a fusion whose root is a `conv_general` that reads inside its input, else None.

    The passes have made it so: channels last, borders stored (no positive padding), holes in the input
    only with strides of 1 and padding of less than an element. The weight is packed: when the module
    is built where it is known then (`static`), else while it runs.
    """
    op = root.op
    assert isinstance(op, ConvGeneral)
    slots = stored_slots(fusion, root)
    dtype = computed_in(root.types[0].dtype)
    if slots is None or dtype not in DTYPES or root.types[0].size == 0:
        return None
    inside = all(
        n < step for pair, step in zip(op.padding, op.lhs_dilation, strict=True) for n in pair
    )
    weight = fusion.body.type_of(root.operands[1]).shape
    packs = slots[1] in static or _is_filter(weight)
    if not (op.channels_last and inside and packs):
        return None
    if set(op.lhs_dilation) != {1}:
        holed = set(op.strides) == {1}
        return _holed(fusion, root, slots, dtype, target) if holed else None
    if _is_product(op, fusion, root):
        return _product(fusion, root, slots, target)
    return _windows(fusion, root, slots, dtype, target)


_FILTER_TAPS = 11 * 11  # AlexNet's first layer: the largest filter of the models people use


def _is_filter(shape: tuple[DimLike, ...]) -> bool:
    """True for a run-time weight that is worth packing: not the other operand of a weight gradient."""
    taps = product(shape[2:])
    return all(isinstance(d, int) for d in shape) and isinstance(taps, int) and taps <= _FILTER_TAPS


def _is_product(op: ConvGeneral, fusion: Fusion, root: Node) -> bool:
    kernel = fusion.body.type_of(root.operands[1]).shape[2:]
    whole = all(n == 0 for pair in op.padding for n in pair)
    return op.groups == 1 and whole and set(kernel) == {1} and set(op.strides) == {1}


def _product(
    fusion: Fusion, root: Node, slots: tuple[int, int], target: CpuTarget
) -> Kernel | None:
    """[N * pixels, C] @ [C, O]."""
    *pixels, features = root.types[0].shape
    channels = fusion.body.type_of(root.operands[0]).shape[-1]
    shape = Product(
        (),
        Axis(product(pixels), channels, 0, tuple(range(len(pixels)))),
        Axis(features, 0, 1, (len(pixels),)),
        Axis(channels, 1, features),
    )

    def matrices(b: GraphBuilder, w: Value) -> Value:
        return b(Transpose((1, 0)), b(Reshape((features, channels)), w))

    return product_kernel(fusion, root, slots, shape, target, Matrices("pointwise", matrices))


def _windows(
    fusion: Fusion, root: Node, slots: tuple[int, int], dtype: str, target: CpuTarget
) -> Kernel:
    op = root.op
    assert isinstance(op, ConvGeneral)
    x, w = (fusion.body.type_of(v) for v in root.operands)
    batch, *output, features = root.types[0].shape
    channels, kernel = _static(x.shape[-1]), tuple(_static(d) for d in w.shape[2:])
    depthwise = op.groups == channels == features
    functions = functions_behind(fusion.body, root)

    def spec(batch: object, output: tuple[object, ...]) -> ConvSpec:
        return ConvSpec(
            batch,
            output,
            channels,
            _static(features),
            kernel,
            op.strides,
            op.rhs_dilation,
            op.groups,
            dtype,
            functions,
        )

    tile = choose_conv(spec(batch, tuple(output)), target)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        n, *out = (dim_expr(d, io.dims) for d in (batch, *output))
        data, memory = _cropped(io, slots[0], x.shape, op), io.operands[slots[1]]
        if depthwise:
            shape = DepthwiseSpec(
                n,
                tuple(out),
                channels,
                kernel,
                op.strides,
                op.rhs_dilation,
                dtype,
                functions,
            )
            weight = _dense(memory, (*kernel, channels))
            emit_depthwise(shape, target, data, weight, epilogue.finish)
            return
        per_group = _static(features) // op.groups
        packed = (
            op.groups,
            -(-per_group // tile.nr),
            *kernel,
            channels // op.groups,
            tile.nr,
        )
        weight = _dense(memory, packed)
        emit_conv(
            spec(n, tuple(out)),
            target,
            data,
            weight,
            epilogue.finish,
            tile=tile,
            finish_run=epilogue.finish_run,
            rolled=epilogue.long,
        )

    packing = Packing.written("depthwise", write_depthwise) if depthwise else _packing(op, tile.nr)
    family = "depthwise" if depthwise else "conv"
    return Kernel(family, emit, packing={slots[1]: packing})


def _packing(op: ConvGeneral, nr: int) -> Packing:
    def write(b: GraphBuilder, w: Value) -> Value:
        return write_conv(b, w, nr, op.groups)

    return Packing.written(f"conv/{op.groups}/{nr}", write)


def _holed(
    fusion: Fusion, root: Node, slots: tuple[int, int], dtype: str, target: CpuTarget
) -> Kernel:
    """A transposed convolution whose windows overlap."""
    op = root.op
    assert isinstance(op, ConvGeneral)
    x, w = (fusion.body.type_of(v) for v in root.operands)
    batch, *output, features = root.types[0].shape
    channels, kernel = _static(x.shape[-1]), tuple(_static(d) for d in w.shape[2:])

    def spec(batch: object, output: tuple[object, ...]) -> HoledConvSpec:
        return HoledConvSpec(
            batch,
            output,
            channels,
            _static(features),
            kernel,
            op.rhs_dilation,
            op.lhs_dilation,
            tuple(low for low, _ in op.padding),
            op.groups,
            dtype,
            functions_behind(fusion.body, root),
        )

    tile = choose_holed_conv(spec(batch, tuple(output)), target)
    panels = -(-_static(features) // op.groups // tile.nr)
    packed = (op.groups, panels, *kernel, channels // op.groups, tile.nr)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        n, *out = (dim_expr(d, io.dims) for d in (batch, *output))
        data, weights = io.operands[slots[0]], io.operands[slots[1]]
        strides = tuple(dim_expr(s, io.dims) for s in strides_of(x.shape))
        emit_holed_conv(
            spec(n, tuple(out)),
            target,
            View(data.buffer, data.dtype, strides, data.offset),
            _dense(weights, packed),
            epilogue.finish,
            tile=tile,
        )

    return Kernel("conv_transpose", emit, packing={slots[1]: _packing(op, tile.nr)})


def _dense(memory: View, shape: tuple[int, ...]) -> View:
    """Packed weights."""
    return View(memory.buffer, memory.dtype, strides_of(shape), memory.offset)


def _cropped(io: KernelIO, slot: int, shape: tuple[DimLike, ...], op: ConvGeneral) -> View:
    """The input, starting where the first window does."""
    strides = tuple(dim_expr(s, io.dims) for s in strides_of(shape))
    memory = io.operands[slot]
    whole = View(memory.buffer, memory.dtype, strides, memory.offset)
    return whole.shifted((0, *(-low for low, _ in op.padding), 0))


def _static(dim: DimLike) -> int:
    """Channel and kernel extents are never named: they are dims of a parameter."""
    assert isinstance(dim, int)
    return dim
