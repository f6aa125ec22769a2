"""`--gradient` and `--train`, for the commands that show a graph: which graph of the model it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from graphc.autodiff import grad_graph
from graphc.diagnostics import nearest
from graphc.frontend import LOSS
from graphc.ir.graph import Graph
from graphc.model import Model
from graphc.optim.step import training_step

F = TypeVar("F", bound=Callable[..., Any])


def view_options(function: F) -> F:
    """`--gradient` and `--train`."""
    for decorate in (
        click.option(
            "--train",
            is_flag=True,
            help="The whole training step of the train block: forward, backward, update.",
        ),
        click.option(
            "--gradient",
            metavar="OUTPUT",
            is_flag=False,
            flag_value="",
            help="Forward and backward: the gradients of a scalar OUTPUT, or of the train block's loss.",
        ),
    ):
        function = decorate(function)
    return function


def graph_of(model: Model, gradient: str | None, train: bool) -> tuple[Graph, str]:
    """The graph that was asked for, and what to call it.

    Raises click.UsageError for options that do not go together or name no output, DiagnosticError for a train
    block that is missing or wrong.
    """
    if train and gradient is not None:
        raise click.UsageError("--train contains the gradient: give one of the two")
    if train:
        forward = model.for_training("train")
        said = forward.training
        assert said is not None
        if said.rule is None:
            raise click.UsageError(f"the train block of {model.name} has no optimizer")
        step = training_step(forward.graph, LOSS, said.rule, _trained(forward), said.metrics)
        return step.graph, f"{model.name}: a training step"
    if gradient is None:
        return model.graph, model.name
    forward = model if gradient else model.for_training("train")
    output = gradient or LOSS
    names = [name for name, _ in forward.graph.outputs]
    if output not in names:
        near = nearest(output, names)
        hint = f"did you mean {near!r}?" if near else f"its outputs: {', '.join(names)}"
        raise click.UsageError(f"{model.name} has no output {output!r}; {hint}")
    graph = grad_graph(forward.graph, output, _trained(forward), [output])
    return graph, f"{model.name}: gradients of {output}"


def _trained(model: Model) -> list[str]:
    """Paths of the parameters that get a gradient."""
    frozen = model.training.frozen if model.training is not None else ()
    used = {str(n.op.attributes()["path"]) for n in model.graph.parameters}
    return [
        p.path for p in model.parameters if p.trainable and p.path in used and p.path not in frozen
    ]
