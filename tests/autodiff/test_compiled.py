"""A gradient graph goes through all passes and kernels like any other."""

from __future__ import annotations

import numpy as np

from graphc import frontend
from graphc.autodiff import grad_graph
from graphc.source import Source
from tests.lowering.compiled import check

TEXT = """
model Small {
    input image: f32[N, 2, 9, 8]
    input label: i64[N]
    h = image
        -> conv1: Conv2d(4, 3, stride=2, padding=1) -> GELU
        -> conv2: Conv2d(4, 2, groups=2) -> MaxPool2d(2, stride=1)
        -> Flatten -> norm: LayerNorm -> fc: Linear(3)
    chosen = gather(log_softmax(h, dim=1), 1, unsqueeze(label, 1))
    output loss = -mean(chosen)
}
"""


def test_loss_and_all_gradients() -> None:
    model = frontend.load(Source("small.nn", TEXT))
    names = [p.path for p in model.parameters]
    graph = grad_graph(model.graph, "loss", ["image", *names], keep=["loss"])
    rng = np.random.default_rng(0)
    image = rng.normal(size=(3, 2, 9, 8)).astype(np.float32)
    check(graph, {"image": image, "label": np.array([0, 2, 1])}, tolerance=2e-5)
