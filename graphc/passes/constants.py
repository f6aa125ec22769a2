"""Constant folding: what depends on small literals only is computed now, by the op's NumPy meaning.

Parameters are not constants: they may change until a module is built. Broadcasts stay as they are,
since a kernel repeats a literal for free; elementwise ops on broadcasts of scalars are folded to one
scalar and broadcast again.
"""

from __future__ import annotations

import numpy as np

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array, Op, Pattern
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import BroadcastInDim, Constant

MAX_FOLDED_ELEMENTS = 4096
"""Results and operands of more elements are left to the built module."""


def fold_constants(graph: Graph) -> Graph:
    """The graph with small literal subexpressions replaced by literals."""
    return rewrite(graph, folded)


def folded(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
    """The rule of this pass: the literal that a node is, or None."""
    op = node.op
    if isinstance(op, (Constant, BroadcastInDim)) or len(node.types) != 1:
        return None
    if op.name in ("input", "parameter") or op.pattern is Pattern.REGION:
        return None
    if op.pattern is Pattern.ELEMENTWISE:
        scalars = [_scalar(r, v) for v in operands]
        if any(r.type_of(v).shape for v in operands) and None not in scalars:
            result = _evaluate(op, [s for s in scalars if s is not None])
            if result is None:
                return None
            return r(BroadcastInDim(node.types[0].shape, ()), r(Constant.of(result)))
    if op.dim_names or not all(isinstance(r.node_of(v).op, Constant) for v in operands):
        return None
    # A source such as iota is worth a literal only if it is one number.
    limit = MAX_FOLDED_ELEMENTS if operands else 1
    sizes = [t.size for t in (*node.types, *(r.type_of(v) for v in operands))]
    if not all(isinstance(size, int) and size <= limit for size in sizes):
        return None
    result = _evaluate(op, [_array(r, v) for v in operands])
    return None if result is None else r(Constant.of(result))


def _evaluate(op: Op, operands: list[Array]) -> Array | None:
    """The result, or None where the op faults: the fault belongs to the run."""
    try:
        with np.errstate(all="ignore"):
            (result,) = op.evaluate(*operands)
    except (ValueError, IndexError, ArithmeticError):
        return None
    return np.asarray(result)


def _array(r: Rewriter, value: Value) -> Array:
    op = r.node_of(value).op
    assert isinstance(op, Constant)
    return op.array


def _scalar(r: Rewriter, value: Value) -> Array | None:
    """The scalar constant behind a broadcast, or a scalar constant itself."""
    node = r.node_of(value)
    if isinstance(node.op, BroadcastInDim):
        node = r.node_of(node.operands[0])
    return node.op.array if isinstance(node.op, Constant) and node.types[0].rank == 0 else None
