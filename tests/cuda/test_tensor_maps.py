"""Tensor maps from the graph to the driver: a whole module for sm_90a, whose maps the C runtime has encoded."""

from pathlib import Path

import numpy as np
import pytest

import graphc
from tests.cuda.fake import emulated

SOURCE = """
model Wide() {
    input x: f32[N, 72]
    output y = x -> fc1: Linear(96) -> ReLU -> fc2: Linear(64)
}
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> graphc.Module:
    file = Path(tmp_path_factory.mktemp("maps"), "m.nn")
    file.write_text(SOURCE)
    with emulated():
        return graphc.load(file).compile(weights=WEIGHTS, target="cuda:sm_90a", precision="bf16")


WEIGHTS = {
    name: np.random.default_rng(len(name)).normal(size=shape).astype(np.float32) / 8
    for name, shape in {
        "fc1.weight": (96, 72),
        "fc1.bias": (96,),
        "fc2.weight": (64, 96),
        "fc2.bias": (64,),
    }.items()
}


@pytest.mark.parametrize("rows", [1, 130, 130])
def test_maps_follow_the_sizes_of_a_call(module: graphc.Module, rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 72)).astype(np.float32)
    hidden = np.maximum(x @ WEIGHTS["fc1.weight"].T + WEIGHTS["fc1.bias"], 0)
    expected = hidden @ WEIGHTS["fc2.weight"].T + WEIGHTS["fc2.bias"]
    with emulated() as gpu:
        launched = gpu.count("launches")
        found = module(x=x)["y"]
        assert gpu.count("launches") > launched or gpu.count("graphs")
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.03)
