"""Filters that are turned before they are packed: one kernel does both, before the state is overwritten."""

from __future__ import annotations

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ops import ConvGeneral, Input, Reverse, Transpose, arith

from .compiled import compile_graph


def _graph(*, also: bool) -> Graph:
    """A convolution by a state turned over, which is halved afterwards; `also`: the turned one is a result."""
    b = GraphBuilder("turned")
    x = b(Input("x", DType.F32, (2, 6, 7, 5)))
    w = b(Input("w", DType.F32, (5, 4, 3, 3), state=True))
    turned = b(Transpose((1, 0, 2, 3)), b(Reverse((2, 3)), w))
    conv = ConvGeneral((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1, True)
    outputs = [("y", b(conv, x, turned)), ("w", arith.multiply(b, w, 0.5))]
    return b.build([*outputs, ("turned", turned)] if also else outputs)


def _run(graph: Graph) -> tuple[list[str], dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 7, 5)).astype(np.float32)
    w = rng.standard_normal((5, 4, 3, 3)).astype(np.float32)
    module = compile_graph(graph, {})
    before = w.copy()
    found = module(x=x, w=w)
    np.testing.assert_array_equal(w, before * np.float32(0.5))
    flipped = before[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    want = np.einsum("nhwikl,oikl->nhwo", windows.astype(np.float64), flipped)
    np.testing.assert_allclose(found["y"], want, rtol=1e-4, atol=1e-5)
    return [k.name for k in module.profile(x=x, w=w).kernels], found, flipped


def test_one_kernel_turns_and_packs() -> None:
    kernels, _, _ = _run(_graph(also=False))
    assert sum("pack" in name for name in kernels) == 1
    assert sum("map" in name for name in kernels) == 2, "the border of x, and the update"


def test_a_filter_that_others_read_is_turned_by_itself() -> None:
    _, found, flipped = _run(_graph(also=True))
    np.testing.assert_array_equal(found["turned"], flipped)
