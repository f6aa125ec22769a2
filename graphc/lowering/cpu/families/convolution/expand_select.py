"""Recognising a pointwise convolution whose only reader is a depthwise one, joining the two, and emitting both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Pattern
from graphc.lowering.cpu.emit import Expr, Extent, View, splat
from graphc.lowering.cpu.families.convolution.depthwise import DepthwiseSpec
from graphc.lowering.cpu.families.convolution.expand import (
    ExpandSpec,
    choose_expand,
    emit_expand,
    scratch_bytes,
)
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.families.packing import write_depthwise, write_matmul
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.strides import strides_of
from graphc.lowering.packing import Packing
from graphc.ops import ConvGeneral, Fusion, Input, Pad, Reshape, Transpose


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two convolutions of one kernel, each in a body of its own; both have the kernel's inputs.

    Attributes:
        first, second: the bodies. The second has one more input, the wide image, last.
        roots: the convolutions.
        slots: the kernel's operands that are the image and the filters of the first and of the second.
    """

    first: Graph
    second: Graph
    roots: tuple[Node, Node]
    slots: tuple[int, int, int]


def convolutions(body: Graph) -> list[Node]:
    """The contractions of a body; two where kernels were joined."""
    return [n for n in body.nodes if n.op.pattern is Pattern.CONTRACT]


def joined(first: Fusion, second: Fusion, slot: int, target: CpuTarget) -> Fusion | None:
    """One kernel for two whose second reads the first's result as operand `slot`, or None where that does not pay.

    Its operands are the first's and then the second's others. Weights are taken to be known when the module is built.
    """
    b = GraphBuilder(second.kind, {**first.body.dims, **second.body.dims})
    count = 0

    def copy(body: Graph, given: Sequence[Value | None]) -> Value:
        nonlocal count
        done: dict[Value, Value] = {}
        slots = iter(given)
        for node in body.nodes:
            known = next(slots) if isinstance(node.op, Input) else None
            if known is not None:
                done[node.values[0]] = known
                continue
            op = node.op
            if isinstance(op, Input):
                op, count = Input(f"arg{count}", op.dtype, op.shape), count + 1
            with b.at(node.scope, node.span):
                done.update(
                    zip(node.values, b.emit(op, *(done[v] for v in node.operands)), strict=True)
                )
        return done[body.outputs[0][1]]

    if len(first.body.outputs) != 1 or len(second.body.outputs) != 1:
        return None
    wide = copy(first.body, [None] * len(first.body.inputs))
    given: list[Value | None] = [None] * len(second.body.inputs)
    given[slot] = wide
    fusion = Fusion(second.kind, b.build([("out0", copy(second.body, given))]))
    pair = _pair(fusion)
    if pair is None or (spec := _spec(pair)) is None:
        return None
    return fusion if choose_expand(spec, target) is not None else None


def select_expand(fusion: Fusion, static: frozenset[int], target: CpuTarget) -> Kernel:
    """The kernel of a fusion that `joined` made. Raises ValueError for another with two contractions."""
    pair = _pair(fusion)
    spec = None if pair is None else _spec(pair)
    tile = None if spec is None else choose_expand(spec, target)
    if pair is None or spec is None or tile is None or not {*pair.slots[1:]} <= static:
        raise ValueError(f"no kernel family takes the two roots of {fusion.kind}")
    second = spec.depthwise

    def emit(io: KernelIO) -> None:
        image, weights, filters = (io.operands[slot] for slot in pair.slots)
        hidden = Epilogue(pair.first, pair.roots[0], io, target)
        epilogue = Epilogue(pair.second, pair.roots[1], io, target)
        epilogue.fill_border()

        def widened(index: Sequence[Extent], value: Expr, lanes: int) -> Expr:
            return _hidden(hidden, index, value, lanes)

        shape = pair.roots[0].types[0].shape
        batch = dim_expr(shape[0], io.dims)
        strides = strides_of((*spec.image, spec.channels))
        packed = strides_of((second.channels // tile.nr, spec.channels, tile.nr))
        assert io.scratch is not None
        emit_expand(
            _with_batch(spec, batch),
            View(image.buffer, image.dtype, (strides[0] * spec.image[0], *strides), image.offset),
            View(weights.buffer, weights.dtype, packed, weights.offset),
            View(
                filters.buffer,
                filters.dtype,
                strides_of((*second.kernel, second.channels)),
                filters.offset,
            ),
            widened,
            epilogue.finish,
            io.scratch,
            tile=tile,
        )

    def matrices(b: GraphBuilder, w: Value) -> Value:
        flat = b(Reshape((second.channels, spec.channels)), w)
        return write_matmul(b, b(Transpose((1, 0)), flat), tile.nr)

    packing = {
        pair.slots[1]: Packing.written(f"pointwise/{tile.nr}", matrices),
        pair.slots[2]: Packing.written("depthwise", write_depthwise),
    }
    return Kernel("expand", emit, scratch_bytes(spec, tile), second.dtype, packing)


def _hidden(epilogue: Epilogue, index: Sequence[Extent], value: Expr, lanes: int) -> Expr:
    """Elements of the wide image, before its border is put around them."""
    e, body, root = epilogue.emitter, epilogue.body, epilogue.root
    output = body.outputs[0][1]
    end = body.node(output.node)
    wanted = end.operands[0] if isinstance(end.op, Pad) else output
    shape = root.types[0].shape
    with e.space.rewound(), e.vector(lanes) as lane:
        at: list[DimLike] = [e.bound(i, 0, d - 1) for i, d in zip(index, shape, strict=True)]
        at[-1] = at[-1] + lane
        inliner = Inliner(body, e)
        inliner.give(root.values[0], at, value)
        return splat(e.lift(inliner.at(wanted, at)), lanes)


def _pair(fusion: Fusion) -> _Pair | None:
    """The two halves of a body with two convolutions, the second of which reads what the first leads to."""
    body = fusion.body
    roots = convolutions(body)
    if len(roots) != 2 or not all(isinstance(r.op, ConvGeneral) for r in roots):
        return None
    wide = roots[1].operands[0]
    before = {wide.node}
    for node in reversed(body.nodes):
        if node.id in before:
            before.update(v.node for v in node.operands)
    slots = {node.values[0]: slot for slot, node in enumerate(body.inputs)}
    operands = (*roots[0].operands, roots[1].operands[1])
    if roots[0].id not in before or any(v not in slots for v in operands):
        return None
    if any(
        v.node in before and v not in slots and v != wide
        for n in body.nodes
        if n.id not in before
        for v in n.operands
    ):
        return None
    if any(wide in n.operands for n in body.nodes if n.id != roots[1].id):
        return None

    def half(inside: bool) -> tuple[Graph, Node]:
        b = GraphBuilder(body.name, body.dims)
        done: dict[Value, Value] = {}
        for node in body.nodes:
            if isinstance(node.op, Input):
                done[node.values[0]] = b(node.op)
        if not inside:
            t = body.type_of(wide)
            done[wide] = b(Input(f"arg{len(slots)}", t.dtype, t.shape))
        for node in body.nodes:
            if isinstance(node.op, Input) or (node.id in before) != inside:
                continue
            with b.at(node.scope, node.span):
                new = b.emit(node.op, *(done[v] for v in node.operands))
            done.update(zip(node.values, new, strict=True))
        graph = b.build([("out0", done[wide if inside else body.outputs[0][1]])])
        (root,) = convolutions(graph)
        return graph, root

    (first, one), (second, two) = half(True), half(False)
    return _Pair(
        first, second, (one, two), (slots[operands[0]], slots[operands[1]], slots[operands[2]])
    )


def _spec(pair: _Pair) -> ExpandSpec | None:
    """What a pair computes, where it is a pointwise and a depthwise convolution of known extents in f32."""
    one, two = pair.roots
    assert isinstance(one.op, ConvGeneral) and isinstance(two.op, ConvGeneral)
    image, weight = (pair.first.type_of(v) for v in one.operands)
    wide, filters = (pair.second.type_of(v) for v in two.operands)
    types = (image, weight, wide, filters, two.types[0])
    if any(t.dtype != DType.F32 for t in types) or image.rank != 4:
        return None
    known = [d for t in types for d in (t.shape[1:] if t.rank == 4 else t.shape)]
    plain = all(
        op.channels_last
        and set(op.lhs_dilation) == set(op.rhs_dilation) == {1}
        and all(n == 0 for side in op.padding for n in side)
        for op in (one.op, two.op)
    )
    channels = wide.shape[-1]
    pointwise = one.op.groups == 1 and set(one.op.strides) == {1} and weight.shape[2:] == (1, 1)
    depthwise = two.op.groups == channels == two.types[0].shape[-1]
    if not (plain and pointwise and depthwise and all(isinstance(d, int) for d in known)):
        return None
    end = pair.first.node(pair.first.outputs[0][1].node)
    low, high, border = (0, 0), (0, 0), 0.0
    if end.op.placeable and end.id != one.id:
        if (
            not isinstance(end.op, Pad)
            or any(end.op.interior)
            or min(*end.op.low, *end.op.high) < 0
        ):
            return None
        if any((end.op.low[0], end.op.high[0], end.op.low[3], end.op.high[3])):
            return None
        low, high = (end.op.low[1], end.op.low[2]), (end.op.high[1], end.op.high[2])
        border = float(end.op.value)
    n, h, w, k = image.shape
    _, oh, ow, c = two.types[0].shape
    assert isinstance(h, int) and isinstance(w, int) and isinstance(k, int) and isinstance(c, int)
    taps = tuple(d for d in filters.shape[2:] if isinstance(d, int))
    second = DepthwiseSpec(n, (oh, ow), c, taps, two.op.strides, (1, 1))
    return ExpandSpec((h, w), k, low, high, border, second)


def _with_batch(spec: ExpandSpec, batch: Extent) -> ExpandSpec:
    return replace(spec, depthwise=replace(spec.depthwise, batch=batch))
