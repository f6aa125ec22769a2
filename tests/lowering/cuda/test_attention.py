"""Attention on a GPU against the interpreter: masks, causal, transposed operands, open sizes."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.precision import store_narrow
from graphc.ops import Attention, Input, Tanh, Transpose
from graphc.passes import pipeline
from graphc.reference import interpret
from tests.lowering.cuda.emulated import check, compare, compile_device, execute

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


NARROW: dict[str, tuple[DimLike, DimLike, int, int, bool]] = {
    "small": (70, 70, 16, 24, True),
    "heads_of_64": (100, 130, 64, 64, False),
    "heads_of_128": (33, 65, 128, 128, True),
    "more_queries": (90, 20, 40, 72, True),
    "open": (T, T, 32, 32, True),
}


@pytest.mark.parametrize("precision", ["bf16", "f16"])
@pytest.mark.parametrize("name", NARROW)
def test_attention_on_tensor_cores(name: str, precision: str) -> None:
    queries, keys, depth, width, causal = NARROW[name]
    b = GraphBuilder("attention", {"T": Bounds(1)} if name == "open" else {})
    rng = np.random.default_rng(0)
    values, arrays = [], {}
    sizes = ((queries, depth), (keys, depth), (keys, width))
    for label, (rows, columns) in zip("qkv", sizes, strict=True):
        shape = (2, rows, 2, columns)
        # A kernel in front, whose result is stored narrow.
        x = b(Tanh(), b(Input(label, DType.F32, shape)))
        values.append(b(Transpose((0, 2, 1, 3)), x))
        size = [75 if isinstance(d, Dim) else d for d in shape]
        arrays[label] = (2 * rng.normal(size=size)).astype(np.float32)
    out = b(Attention(0.3, causal), *values)
    graph = b.build([("y", b(Transpose((0, 2, 1, 3)), out))])
    spec, program = compile_device(graph, {}, precision=precision)
    assert "graphc_attend<graphc_" in program.source.split('extern "C" __global__')[-1]
    found, _ = execute(spec, program, graph, arrays, reverse=name == "open")
    fused, _ = pipeline.run(graph, keep=pipeline.device_kernels)
    narrow = store_narrow(fused, DType(precision), lambda op, lhs, rhs, packed: True)
    compare(found, interpret(narrow, arrays, {}), 8e-3 if precision == "bf16" else 1e-3)
