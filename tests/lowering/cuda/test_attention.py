"""Attention on a GPU against the interpreter: masks, causal, transposed operands, open sizes."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ops import Attention, Input, Transpose
from tests.lowering.cuda.emulated import check

T = Dim.symbol("T")
CASES: dict[str, tuple[DimLike, DimLike, int, int, str, bool]] = {
    "plain": (5, 7, 8, 8, "", False),
    "causal": (70, 70, 16, 4, "", True),
    "shared_query": (33, 20, 64, 64, "bool", False),
    "wide": (9, 40, 128, 64, "add", True),
    "odd": (4, 17, 5, 3, "bool", True),
    "open": (T, T, 16, 16, "", True),
}


def attention(name: str, dtype: DType = DType.F32) -> tuple[Graph, dict[str, np.ndarray]]:
    queries, keys, depth, width, mask, causal = CASES[name]
    b = GraphBuilder("attention", {"T": Bounds(1)} if name == "open" else {})
    rng = np.random.default_rng(0)
    values, arrays = [], {}
    sizes = ((queries, depth), (keys, depth), (keys, width))
    for label, (rows, columns) in zip("qkv", sizes, strict=True):
        shape = (2, rows, 3, columns)
        x = b(Input(label, dtype, shape))
        values.append(b(Transpose((0, 2, 1, 3)), x))
        arrays[label] = rng.normal(size=[19 if isinstance(d, Dim) else d for d in shape]).astype(
            dtype.numpy
        )
    if mask:
        kind = DType.BOOL if mask == "bool" else dtype
        seen = rng.random((2, 1, queries, keys)) < 0.7  # type: ignore[arg-type]
        seen[0, 0, 0] = False
        arrays["mask"] = (
            seen if mask == "bool" else np.where(seen, 0.5, -np.inf).astype(dtype.numpy)
        )
        values.append(b(Input("mask", kind, seen.shape)))
    out = b(Attention(0.3, causal), *values)
    return b.build([("y", b(Transpose((0, 2, 1, 3)), out))]), arrays


@pytest.mark.parametrize("name", CASES)
def test_attention_is_what_the_interpreter_computes(name: str) -> None:
    graph, arrays = attention(name)
    spec, _ = check(graph, arrays, tolerance=3e-6, reverse=name == "causal")
    assert [k.op for k in spec.kernels] == ["attention"]
