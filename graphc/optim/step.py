"""The training step: forward, backward and update in one graph.

What the graph of a model computes from its parameters becomes what a step computes from its state: every parameter that
changes is an input that the step overwrites (`Graph.state`), and so is all that the optimizer remembers. Parameters
that are frozen stay parameters: they are known when the step is compiled, so their arithmetic is done then, and no
gradient goes to them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from graphc.autodiff import gradients
from graphc.ir.graph import Graph, GraphBuilder, Scope, Value
from graphc.ir.types import TensorType
from graphc.ops import Abs, Input, arith
from graphc.optim.base import ArgumentError, Slot
from graphc.optim.rule import Rule
from graphc.optim.transform import chosen

RATE = "lr"
"""The output that tells the learning rate of the step, an f64 scalar."""

NORM = "grad_norm"
"""The output that tells the 2-norm of all gradients, an f64 scalar; only where they are clipped to it."""


@dataclass(frozen=True)
class TrainingStep:
    """A step as a graph, and what its state is.

    Attributes:
        graph: Inputs are the data and the state, results the loss, metrics and `lr`.
        trained: Types of the parameters that the optimizer changes, by path.
        buffers: Types of the parameters that the forward part changes, such as running statistics.
        slots: What the optimizer remembers, by name.
    """

    graph: Graph
    trained: Mapping[str, TensorType]
    buffers: Mapping[str, TensorType]
    slots: Mapping[str, Slot]


def training_step(
    graph: Graph,
    loss: str,
    rule: Rule,
    trainable: Collection[str],
    metrics: Collection[str] = (),
    *,
    guard: bool = True,
) -> TrainingStep:
    """The step that lowers an output of a graph.

    Args:
        graph: the forward part. Its outputs are the loss, metrics, and next values of buffers by the paths of their
            parameters; an output named as a state input of the graph is that state's next value.
        loss: the output to minimise, a float scalar.
        rule: what is done with the gradients.
        trainable: paths of the parameters that get one.
        metrics: further outputs to keep.
        guard: a step whose loss is not finite leaves the state as it was.

    Raises OpError where the loss has no gradient, ArgumentError where nothing can be trained or the rule does not fit,
    ValueError for names that do not exist.
    """
    outputs = dict(graph.outputs)
    for name in (loss, *metrics):
        if name not in outputs:
            raise ValueError(f"{graph.name} has no output {name!r}, only {', '.join(outputs)}")
    types = {str(p.op.attributes()["path"]): p.types[0] for p in graph.parameters}
    trained = {path: t for path, t in types.items() if path in trainable}
    buffers = {path: t for path, t in types.items() if path in outputs and path not in trained}
    if not trained:
        raise ArgumentError("freeze", "leaves no parameter to train")
    slots = rule.state(trained)

    b = GraphBuilder(graph.name, graph.dims)
    moved = _opened(graph, b, {*trained, *buffers}, state=True)
    inside = {name: moved[value] for name, value in outputs.items()}
    values = {str(getattr(n.op, "label", "")): n.values[0] for n in b.nodes if n.op.name == "input"}
    for name, slot in slots.items():
        values[name] = b(Input(name, slot.type.dtype, slot.type.shape, state=True))
    parameters = {path: values[path] for path in trained}
    found = gradients(b, inside[loss], list(parameters.values()))
    applied = rule.apply(
        b, parameters, dict(zip(parameters, found, strict=True)), {n: values[n] for n in slots}
    )
    results = [(name, inside[name]) for name in (loss, *metrics)]
    results.append((RATE, applied.rate))
    if rule.clip_norm is not None:
        results.append((NORM, applied.norm))
    own = [str(n.op.attributes()["label"]) for n, _ in graph.state]
    after = {name: inside[name] for name in (*buffers, *own) if name in inside}
    after |= {**applied.parameters, **applied.state}
    if guard:
        with b.at((Scope("optimizer", rule.optimizer.name),), None):
            sound = arith.compare(b, "lt", b(Abs(), inside[loss]), math.inf)
            after = {name: chosen(b, sound, new, values[name]) for name, new in after.items()}
    results += after.items()
    return TrainingStep(b.build(results, prune=True), trained, buffers, slots)


def with_inputs(graph: Graph, paths: Collection[str]) -> Graph:
    """The graph with some parameters as inputs, called by their paths: a model that is run on any weights."""
    b = GraphBuilder(graph.name, graph.dims)
    moved = _opened(graph, b, paths, state=False)
    return b.build([(name, moved[value]) for name, value in graph.outputs])


def _opened(
    graph: Graph, b: GraphBuilder, paths: Collection[str], state: bool
) -> dict[Value, Value]:
    """Copies a graph to a builder with some parameters as inputs; where each value went."""
    moved: dict[Value, Value] = {}
    for node in graph.nodes:
        op = node.op
        if op.name == "parameter":
            path, type = str(op.attributes()["path"]), node.types[0]
            if path in paths:
                op = Input(path, type.dtype, type.shape, state=state)
        with b.at(node.scope, node.span):
            new = b.emit(op, *(moved[v] for v in node.operands))
        moved.update(zip(node.values, new, strict=True))
    return moved
