"""Channels last: every spatial op reads and writes N *S C between two transposes.

Vectors then run over channels, which are many, contiguous and equal for all positions. The
transposes are for `transposes.py` to move together and cancel; what is left is one at an image's
entry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import Transpose


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation from N C *S to N *S C."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """The permutation from N *S C to N C *S."""
    return (0, rank - 1, *range(1, rank - 1))


def channels_last(graph: Graph) -> Graph:
    """The graph with `channels_last` set on every spatial op of rank 3 or more."""
    return rewrite(graph, _rule)


def _rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
    op: Any = node.op
    if not op.spatial or op.channels_last or r.type_of(operands[0]).rank < 3:
        return None
    turn = Transpose(to_last(r.type_of(operands[0]).rank))
    last = [r(turn, v) for v in operands[: op.spatial_operands]]
    result = r(replace(op, channels_last=True), *last, *operands[op.spatial_operands :])
    return r(Transpose(to_first(r.type_of(result).rank)), result) if op.spatial_result else result
