"""The one loop that gives a graph its meaning: every node's `evaluate`, in order. See `graphc/reference.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Array
from graphc.ir.types import TensorType

Observer = Callable[[Node, tuple[Array, ...]], None]


def needed(graph: Graph, targets: Iterable[Value], given: Mapping[Value, Array]) -> set[int]:
    """Ids of the nodes that must run to know `targets` when `given` is known."""
    todo = [v for v in targets if v not in given]
    found: set[int] = set()
    while todo:
        value = todo.pop()
        if value.node not in found:
            found.add(value.node)
            todo += [v for v in graph.node(value.node).operands if v not in given]
    return found


def run(
    graph: Graph,
    given: Mapping[Value, Array],
    targets: Iterable[Value],
    env: Mapping[str, int] | None = None,
    observe: Observer | None = None,
) -> dict[Value, Array]:
    """Arrays of `targets`, from arrays of `given`; `env` gives the named dims.

    Runs only what is needed and frees every intermediate after its last use. Results may be the given arrays
    themselves. Raises what ops raise (IndexError for an index out of range), and ValueError naming an input or
    parameter that is needed but not given, or a result that breaks its op's shape rule.
    """
    targets = tuple(targets)
    live = needed(graph, targets, given)
    uses = Counter(v for i in live for v in graph.node(i).operands)
    uses.update(targets)
    known: dict[Value, Array] = {v: given[v] for v in uses if v in given}
    for node in graph.nodes:
        if node.id not in live:
            continue
        op = node.op.substitute(env) if env else node.op
        if node.op.name in ("input", "parameter"):
            raise ValueError(f"no value for {next(iter(op.attributes().values()))}")
        results = op.evaluate(*(known[v] for v in node.operands))
        _check(node, results, env or {})
        if observe is not None:
            observe(node, results)
        for value in node.operands:
            uses[value] -= 1
            if not uses[value]:
                known.pop(value, None)
        known.update((v, x) for v, x in zip(node.values, results, strict=True) if uses[v])
    return {v: known[v] for v in targets}


def _check(node: Node, results: tuple[Array, ...], env: Mapping[str, int]) -> None:
    """Raises ValueError unless the arrays have the types the shape rule promised."""
    for type, x in zip(node.types, results, strict=True):
        promised: TensorType = type.substitute(env)
        if x.shape != promised.shape or x.dtype != type.dtype.numpy:
            got = f"{np.dtype(x.dtype).name}{list(x.shape)}"
            raise ValueError(f"node {node.id} ({node.op.name}) promised {promised} and gave {got}")
