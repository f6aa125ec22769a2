"""Every example on a GPU: the device program computes what its PyTorch twin computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import graphc
from tests.examples.test_examples import CASES, EXAMPLES, TOLERANCE, _many, drawn, randomised
from tests.lowering.cuda.emulated import compile_device, execute


@pytest.mark.parametrize("name", CASES)
def test_equals_its_twin(name: str) -> None:
    torch.manual_seed(0)
    twin = randomised(CASES[name].twin())
    model = graphc.load(EXAMPLES / f"{name}.nn", **CASES[name].settings)
    weights = {k: v.numpy() for k, v in twin.state_dict().items()}
    parameters = {n.op.path: weights[n.op.path] for n in model.graph.parameters}
    spec, program = compile_device(model.graph, parameters)
    rng = np.random.default_rng(0)
    inputs = {k: drawn(shape, rng) for k, shape in CASES[name].inputs.items()}
    with torch.no_grad():
        expected = _many(twin(*(torch.from_numpy(x) for x in inputs.values())))
    found, fault = execute(spec, program, model.graph, inputs)
    assert not any(fault)
    for value, want in zip(found.values(), expected, strict=True):
        reference = want.numpy()
        assert value.shape == reference.shape
        assert np.abs(value - reference).max() <= TOLERANCE * np.abs(reference).max()
