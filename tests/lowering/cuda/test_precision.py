"""`--precision` on a GPU: the rewritten graph says what is computed; tf32 stays near f32."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.artifact.cuda.target import parse_cuda_target
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.lowering.cuda.generate import generate_device
from graphc.lowering.precision import store_narrow
from graphc.passes import pipeline
from graphc.reference import interpret
from tests.frontend.helpers import load
from tests.lowering.compiled import random_parameters
from tests.lowering.cuda.emulated import compare, compile_device, execute

NETWORK = """model Net {
    input image: f32[N, 3, 12, 12]
    input words: f32[N, 9, 32]
    h = image -> conv1: Conv2d(16, 3, padding=1) -> ReLU -> conv2: Conv2d(24, 3, stride=2) -> ReLU
    output pixels = h -> AvgPool2d(5) -> Flatten -> fc: Linear(10)
    a = words -> norm: LayerNorm(32) -> attend: MultiheadAttention(4)
    output words = words + (a -> up: Linear(48) -> GELU -> down: Linear(32)) -> Softmax
}
"""


def network() -> tuple[Graph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    graph = load(NETWORK).graph
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.normal(size=(2, 3, 12, 12)).astype(np.float32),
        "words": rng.normal(size=(2, 9, 32)).astype(np.float32),
    }
    weights = {k: v / np.float32(8) for k, v in random_parameters(graph).items()}
    return graph, inputs, weights


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_the_narrow_graph_is_what_the_module_computes(precision: str) -> None:
    graph, inputs, weights = network()
    spec, program = compile_device(graph, weights, precision=precision)
    assert spec.precision == precision
    found, _ = execute(spec, program, graph, inputs)
    fused, _ = pipeline.run(graph, keep=pipeline.device_kernels)
    narrow = store_narrow(fused, DType(precision), lambda op, lhs, rhs, packed: True)
    compare(found, interpret(narrow, inputs, weights), 8e-3 if precision == "bf16" else 2e-3)
    assert f"graphc_on_tensor_cores<graphc_{precision}" in program.source


def test_tf32_is_near_f32_and_only_where_asked_for() -> None:
    graph, inputs, weights = network()
    spec, program = compile_device(graph, weights, precision="tf32")
    found, _ = execute(spec, program, graph, inputs)
    compare(found, interpret(graph, inputs, weights), 2e-3)
    assert "graphc_on_tensor_cores<graphc_tf32" in program.source
    _, plain = compile_device(graph, weights)
    assert "graphc_on_tensor_cores<graphc_tf32" not in plain.source


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="no precision 'high' on cuda:sm_90; there are f32, tf32"):
        generate_device(network()[0], {}, parse_cuda_target("cuda"), "high")
