"""Joining kernels whose intermediate result is better kept in a cache than written: on the fused graph, per target."""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.lowering.aliasing import origin
from graphc.lowering.cpu.families.convolution.expand_select import convolutions, joined
from graphc.lowering.cpu.features import CpuTarget
from graphc.ops import Fusion


def join_kernels(graph: Graph, static: frozenset[int], target: CpuTarget) -> Graph:
    """The graph with each pointwise convolution joined to the depthwise one that alone reads it, where that pays."""
    joins: dict[int, tuple[int, Fusion]] = {}
    for node in graph.nodes:
        for slot, value in enumerate(node.operands):
            source = graph.node(value.node)
            if node.id in joins or not _both(graph, source, node, static):
                continue
            if len(graph.uses(value)) != 1 or graph.is_output(value):
                continue
            assert isinstance(source.op, Fusion) and isinstance(node.op, Fusion)
            fusion = joined(source.op, node.op, slot, target)
            if fusion is not None:
                joins[node.id] = (slot, fusion)

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.id not in joins:
            return None
        slot, fusion = joins[node.id]
        source = graph.node(node.operands[slot].node)
        first = [r.map[v] for v in source.operands]
        others = [v for i, v in enumerate(operands) if i != slot]
        with r.at(source.scope, source.span):
            return r.emit(fusion, *first, *others)

    return rewrite(graph, rule) if joins else graph


def _both(graph: Graph, first: Node, second: Node, static: frozenset[int]) -> bool:
    """Whether both are kernels around one contraction by weights that are known when the module is built."""
    for node in (first, second):
        if not isinstance(node.op, Fusion):
            return False
        roots = convolutions(node.op.body)
        if len(roots) != 1 or len(roots[0].operands) != 2:
            return False
        slots = {n.values[0]: i for i, n in enumerate(node.op.body.inputs)}
        slot = slots.get(roots[0].operands[1])
        if slot is None or origin(graph, node.operands[slot]).node not in static:
            return False
    return True
