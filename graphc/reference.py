"""What a graph means: the NumPy interpreter, the oracle of every pass and kernel.

y = interpret(graph, {"image": x}, weights)["logits"]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from graphc.ir.dim import Dim, DimLike, Symbol, evaluate, names_of, substitute
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.interpret import Observer, needed, run
from graphc.ir.op import Array

__all__ = ["InputError", "bind_dims", "evaluate_values", "interpret"]


class InputError(ValueError):
    """The arrays given do not fit the graph: a name, a shape, a dtype or a named dim."""


def interpret(
    graph: Graph,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Array],
    dims: Mapping[str, int] | None = None,
    observe: Observer | None = None,
) -> dict[str, Array]:
    """The graph's outputs by name.

    `inputs` by label and `parameters` by path must have the declared types; named dims are bound from the inputs'
    shapes, and by `dims` where no input shows them. `observe(node, results)` is called after each node that runs. Dead
    intermediates are freed on the way. Results never share memory with what was given.

    Raises InputError for missing or unknown names, wrong dtypes or shapes, dims that cannot be bound or break their
    bounds, and IndexError for an index out of range in the data.
    """
    arrays = {k: np.asarray(v) for k, v in inputs.items()}
    given = _match(graph.inputs, "label", "input", arrays)
    env = bind_dims(graph, arrays, dims)
    for node, x in given:
        _check_type(node, x, env)
    targets = tuple(v for _, v in graph.outputs)
    weights = {k: np.asarray(v) for k, v in parameters.items()}
    live = needed(graph, targets, {})
    wanted = tuple(
        n for n in graph.parameters if n.id in live or n.op.attributes()["path"] in weights
    )
    matched = _match(wanted, "path", "parameter", weights, surplus=True)
    for node, x in matched:
        _check_type(node, x, env)
    known = {node.values[0]: x for node, x in (*given, *matched)}
    found = run(graph, known, targets, env, observe)
    sources = [x for _, x in (*given, *matched)]
    outputs = {}
    for name, value in graph.outputs:
        x = found[value]
        shared = not x.flags.writeable or any(np.may_share_memory(x, s) for s in sources)
        outputs[name] = x.copy() if shared else x
    return outputs


def evaluate_values(
    graph: Graph,
    values: Iterable[Value],
    given: Mapping[str, Array],
    env: Mapping[str, int] | None = None,
) -> dict[Value, Array]:
    """Arrays of values that depend on parameters and constants only: what is computed once, at build time.

    `given` are parameters by path; `env` gives named dims, where there are any. Raises InputError for a parameter that
    is missing or has another type, and ValueError when a value depends on an input.
    """
    wanted = tuple(values)
    live = needed(graph, wanted, {})
    nodes = tuple(n for n in graph.parameters if n.id in live)
    matched = _match(nodes, "path", "parameter", given, surplus=True)
    for node, x in matched:
        _check_type(node, x, env or {})
    return run(graph, {n.values[0]: x for n, x in matched}, wanted, env)


def _match(
    nodes: Iterable[Node],
    attribute: str,
    what: str,
    arrays: Mapping[str, Array],
    surplus: bool = False,
) -> list[tuple[Node, Array]]:
    """Nodes with their arrays, by name. Raises InputError for names missing, or unknown unless `surplus`."""
    names = {str(n.op.attributes()[attribute]): n for n in nodes}
    missing = [n for n in names if n not in arrays]
    unknown = [] if surplus else [n for n in arrays if n not in names]
    for label, group in (("missing", missing), ("unknown", unknown)):
        if group:
            raise InputError(f"{label} {what}{'s' if len(group) > 1 else ''}: {', '.join(group)}")
    return [(node, np.asarray(arrays[name])) for name, node in names.items()]


def _check_type(node: Node, x: Array, env: Mapping[str, int]) -> None:
    """Raises InputError unless the array has the node's type."""
    (type,) = node.types
    name = next(iter(node.op.attributes().values()))
    if x.dtype != type.dtype.numpy:
        raise InputError(f"{node.op.name} {name} is {type} and got an array of {x.dtype}")
    expected = type.concrete(env)
    if x.shape != expected:
        raise InputError(f"{node.op.name} {name} is {type} and got shape {list(x.shape)}")


def bind_dims(
    graph: Graph, inputs: Mapping[str, Array], dims: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Values of the named dims, solved from the inputs' shapes.

    A dimension that is linear in one name still unknown, such as `16*H + 2`, gives that name; a quotient of sums such
    as `T // 2` does not, and is only checked. Raises InputError when names stay unknown, when two places disagree, or
    when a value breaks its bounds.
    """
    env: dict[str, int] = dict(dims or {})
    origin = dict.fromkeys(env, "the dims given")
    equations: list[tuple[DimLike, int, str]] = []
    for node in graph.inputs:
        label, type = str(node.op.attributes()["label"]), node.types[0]
        if label not in inputs:
            raise InputError(f"missing input: {label}")
        shape = inputs[label].shape
        if len(shape) != type.rank:
            raise InputError(f"input {label} is {type} and got shape {list(shape)}")
        equations += [
            (d, n, f"dimension {axis} of input {label}")
            for axis, (d, n) in enumerate(zip(type.shape, shape, strict=True))
        ]
    todo = equations
    while todo:
        left = []
        for dim, size, place in todo:
            rest = substitute(dim, env)
            if isinstance(rest, int):
                continue
            solved = _solve(rest, size)
            if solved is None:
                left.append((dim, size, place))
                continue
            name, value = solved
            if value is None:
                raise InputError(f"{place} is {dim} and cannot be {size} for any {name}")
            env[name], origin[name] = value, place
        if len(left) == len(todo):
            break
        todo = left
    _check_dims(graph, equations, env, origin)
    return env


def _solve(dim: Dim, size: int) -> tuple[str, int | None] | None:
    """The one name in `a * name + c == size` and its value (None: no whole number); None for other forms."""
    terms = dict(dim.terms)
    rest = size - terms.pop((), 0)
    if len(terms) != 1:
        return None
    ((mono, slope),) = terms.items()
    ((atom, power), *others) = mono
    if others or power != 1 or not isinstance(atom, Symbol):
        return None
    value, remainder = divmod(rest, slope)
    return (atom.name, value if remainder == 0 and value >= 0 else None)


def _check_dims(
    graph: Graph,
    equations: list[tuple[DimLike, int, str]],
    env: Mapping[str, int],
    origin: Mapping[str, str],
) -> None:
    """Raises InputError for unknown names, contradictions and broken bounds."""
    unknown = sorted({n for dim, _, _ in equations for n in names_of(dim) if n not in env})
    unknown += sorted(n for n in graph.dims if n not in env and n not in unknown)
    if unknown:
        raise InputError(f"the inputs do not tell {', '.join(unknown)}; give a value in dims")
    for dim, size, place in equations:
        expected = evaluate(dim, env)
        if expected != size:
            why = ", ".join(f"{n} = {env[n]} from {origin[n]}" for n in names_of(dim))
            raise InputError(
                f"{place} is {dim} and got {size}"
                + (f", but is {expected} with {why}" if why else "")
            )
    for name, value in env.items():
        bounds = graph.dims.get(name)
        if bounds and (value < bounds.low or (bounds.high is not None and value > bounds.high)):
            high = "" if bounds.high is None else f" and at most {bounds.high}"
            raise InputError(f"{name} = {value} must be at least {bounds.low}{high}")
