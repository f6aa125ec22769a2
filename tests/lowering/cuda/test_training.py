"""Training steps on a GPU: gradients, random masks, optimizers and state that is written in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.optim.step import training_step
from graphc.reference import interpret
from tests.lowering.cuda.emulated import compare, compile_device, execute

DENSE = """model Dense {
    input image: f32[N, 24]
    output logits = image -> fc1: Linear(24) -> ReLU -> Dropout(0.2) -> fc2: Linear(24) -> ReLU -> Dropout(0.2)
                          -> fc3: Linear(5)
}

train Dense {
    input label: i64[N]
    loss cross_entropy(logits, label, label_smoothing=0.05)
    optimizer AdamW(lr=3e-3, weight_decay=0.01, clip_norm=1.0, no_decay=["*.bias"])
}
"""
CONVOLUTION = """model Convolution {
    input image: f32[N, 3, 10, 10]
    output logits = image -> conv: Conv2d(8, 3, padding=1, bias=false) -> norm: BatchNorm2d -> ReLU -> MaxPool2d(2)
                          -> Flatten -> fc: Linear(5)
}

train Convolution {
    input label: i64[N]
    loss cross_entropy(logits, label)
    optimizer SGD(lr=0.1, momentum=0.9)
}
"""


@pytest.mark.parametrize("text", [DENSE, CONVOLUTION], ids=["dense", "convolution"])
def test_steps_are_what_the_interpreter_computes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "net.nn"
    path.write_text(text)
    model = graphc.load(path)
    forward = model.for_training("train")
    said = forward.training
    assert said is not None and said.rule is not None
    trainable = [p.path for p in forward.parameters if p.trainable]
    graph = training_step(forward.graph, "loss", said.rule, trainable).graph
    rng = np.random.default_rng(0)
    weights = model.initialise()
    inputs = {"label": rng.integers(0, 5, 7)}
    for node in graph.inputs:
        label, type = node.op.attributes()["label"], node.types[0]
        if label in weights:
            inputs[label] = weights[label]
        elif label not in inputs:
            shape = type.concrete({"N": 7})
            drawn = rng.normal(size=shape) if label == "image" else np.zeros(shape)
            inputs[label] = drawn.astype(type.dtype.numpy)
    parameters = {p.op.path: weights[p.op.path] for p in graph.parameters}
    spec, program = compile_device(graph, parameters)
    masked = [k.name for k in spec.kernels if "relu" in k.label and "grad" not in k.label]
    if text == DENSE:  # the same code for both layers, whatever their streams of random numbers
        assert len(masked) == 2 and len(set(masked)) == 1
    for _ in range(2):
        found, fault = execute(spec, program, graph, inputs)
        assert not any(fault)
        compare(found, interpret(graph, inputs, parameters), 2e-5)
        inputs = {name: found.get(name, array) for name, array in inputs.items()}
