"""Attention in training moves nothing: heads are read and stored where the projections have them."""

from __future__ import annotations

import numpy as np

from graphc.autodiff import gradients
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ops import Attention, DotGeneral, Fusion, Input, Parameter, Transpose, arith
from graphc.passes import pipeline
from graphc.reference import interpret

_HEADS = (0, 2, 1, 3)


def graph_of() -> Graph:
    b = GraphBuilder("heads")
    x = b(Input("x", DType.F32, (2, 6, 8)))

    def projected(name: str) -> Value:
        w = b(Parameter(name, DType.F32, (8, 8), "zeros()"))
        y = b(DotGeneral((), (), (2,), (1,)), x, w)
        return b(Transpose(_HEADS), arith.reshape(b, y, (2, 6, 2, 4)))

    y = b(Attention(0.5, True), *(projected(n) for n in "qkv"))
    rows = arith.reshape(b, b(Transpose(_HEADS), y), (2, 6, 8))
    out = b(DotGeneral((), (), (2,), (1,)), rows, b(Parameter("o", DType.F32, (8, 8), "zeros()")))
    loss = arith.sum(b, arith.multiply(b, out, out))
    (dx,) = gradients(b, loss, [x])
    return b.build([("loss", loss), ("dx", dx)])


def test_nothing_is_moved_around_attention() -> None:
    graph = graph_of()
    fused, _ = pipeline.run(graph, keep=pipeline.device_kernels)
    bodies = [n.op.body for n in fused.nodes if isinstance(n.op, Fusion)]
    names = [[n.op.name for n in body.nodes if n.op.name != "input"] for body in bodies]
    kinds = [n.op.kind for n in fused.nodes if isinstance(n.op, Fusion)]
    assert kinds.count("attention") == kinds.count("attention_gradient") == 1
    assert ["transpose"] not in names
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(2, 6, 8)).astype(np.float32)}
    weights = {n: rng.normal(size=(8, 8)).astype(np.float32) for n in "qkvo"}
    want, found = interpret(graph, inputs, weights), interpret(fused, inputs, weights)
    for name, array in want.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)
