"""Whole models from `examples/`: the gradient by every parameter is PyTorch's."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from graphc import frontend
from graphc.autodiff import gradients
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ir.verify import verify
from graphc.ops import Input, arith
from graphc.reference import interpret
from tests.examples.test_examples import CASES, EXAMPLES, drawn, randomised

NAMES = ("lenet", "mlp", "resnet18", "transformer_encoder", "gpt2_small", "unet", "mobilenet_v2")
TOLERANCE = 1e-4
"""Relative to the largest element, in f32 on both sides."""


def with_gradients(graph: Graph, paths: list[str]) -> Graph:
    """Gradients of the outputs, each weighted by another input `weight_<output>`."""
    b = GraphBuilder(graph.name, graph.dims)
    b.nodes = list(graph.nodes)
    terms = []
    for name, value in graph.outputs:
        type = b.type_of(value)
        weight = b(Input(f"weight_{name}", type.dtype, type.shape))
        terms.append(arith.sum(b, arith.multiply(b, value, weight)))
    loss = functools.reduce(lambda x, y: arith.add(b, x, y), terms)
    where = {n.op.attributes()["path"]: n.values[0] for n in graph.parameters}
    found = gradients(b, loss, [where[path] for path in paths])
    return b.build(list(zip(paths, found, strict=True)), prune=True)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_all_parameters(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    model = frontend.load(EXAMPLES / f"{name}.nn", settings=case.settings)
    twin = randomised(case.twin())
    arrays = frontend.match_weights(
        model.parameters, {k: v.numpy() for k, v in twin.state_dict().items()}
    )
    rng = np.random.default_rng(0)
    inputs = {k: drawn(spec, rng) for k, spec in case.inputs.items()}
    expected = twin(*(torch.from_numpy(x) for x in inputs.values()))
    several = expected if isinstance(expected, tuple) else (expected,)
    weights = {
        f"weight_{k}": rng.normal(size=tuple(y.shape)).astype(np.float32)
        for k, y in zip(case.outputs, several, strict=True)
    }
    pairs = zip(several, weights.values(), strict=True)
    torch.stack([(y * torch.from_numpy(w)).sum() for y, w in pairs]).sum().backward()
    trainable = [p for p in model.parameters if p.trainable]
    truth = {k: p.grad.numpy() for k, p in twin.named_parameters() if p.grad is not None}
    wanted = frontend.match_weights(trainable, truth)
    graph = with_gradients(model.graph, [p.path for p in trainable])
    verify(graph)
    found = interpret(graph, {**inputs, **weights}, arrays)
    for path, want in wanted.items():
        assert found[path].shape == want.shape
        error = np.abs(found[path] - want).max()
        assert error <= TOLERANCE * (1e-3 + np.abs(want).max()), path
