"""Attention on a GPU against the interpreter: masks, causal, transposed operands, open sizes."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.autodiff import gradients
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


NARROW: dict[str, tuple[DimLike, DimLike, int, int, bool, str]] = {
    "small": (70, 70, 16, 24, True, "bf16"),
    "heads_of_64": (100, 130, 64, 64, False, "bf16"),
    "heads_of_128": (33, 65, 128, 128, True, "f16"),
    "more_queries": (90, 20, 40, 72, True, "bf16"),
    "masked": (70, 90, 16, 16, False, "f16"),
    "open": (T, T, 32, 32, True, "bf16"),
}


@pytest.mark.parametrize("name", NARROW)
def test_attention_on_tensor_cores(name: str) -> None:
    queries, keys, depth, width, causal, precision = NARROW[name]
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
    if name == "masked":
        arrays["mask"] = rng.random((2, 1, 1, keys)) < 0.7  # type: ignore[arg-type]
        values.append(b(Input("mask", DType.BOOL, (2, 1, 1, keys))))
    out = b(Attention(0.3, causal), *values)
    graph = b.build([("y", b(Transpose((0, 2, 1, 3)), out))])
    spec, program = compile_device(graph, {}, precision=precision)
    assert "graphc_attend<graphc_" in program.source.split('extern "C" __global__')[-1]
    found, _ = execute(spec, program, graph, arrays, reverse=name == "open")
    fused, _ = pipeline.run(graph, keep=pipeline.device_kernels)
    narrow = store_narrow(fused, DType(precision), lambda op, lhs, rhs, packed: True)
    compare(found, interpret(narrow, arrays, {}), 8e-3 if precision == "bf16" else 1e-3)


def gradient(
    sizes: tuple[DimLike, DimLike, int, int], mask: str, causal: bool, narrow: bool
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The gradients of attention over heads that lie between rows; through kernels of their own where `narrow`."""
    queries, keys, depth, width = sizes
    b = GraphBuilder("gradient", {"T": Bounds(1)} if isinstance(queries, Dim) else {})
    rng = np.random.default_rng(0)
    values, arrays = [], {}
    rows = {"q": (queries, depth), "k": (keys, depth), "v": (keys, width), "g": (queries, width)}
    for label, (count, columns) in rows.items():
        shape = (2, count, 2, columns)
        x = b(Input(label, DType.F32, shape))
        values.append(b(Transpose((0, 2, 1, 3)), b(Tanh(), x) if narrow else x))
        size = [75 if isinstance(d, Dim) else d for d in shape]
        arrays[label] = rng.normal(size=size).astype(np.float32)
    *operands, cotangent = values
    if mask:
        kind = DType.BOOL if mask == "bool" else DType.F32
        shape = (2, 1, 1, keys) if mask == "keys" else (1, 2, queries, keys)
        seen = rng.random(shape) < 0.7  # type: ignore[arg-type]
        seen[0, -1, 0] = mask == "keys"  # no key for the first query
        bias = np.where(seen, 0.5, -np.inf).astype(np.float32)
        arrays["mask"] = seen if mask == "bool" else bias
        operands.append(b(Input("mask", kind, shape)))
    y = b(Attention(0.3, causal), *operands)
    found = gradients(b, y, operands[:3], cotangent)
    if depth > 5:  # stored where the projections have them
        found = tuple(b(Transpose((0, 2, 1, 3)), v) for v in found)
    return b.build([(f"d{x}", v) for x, v in zip("qkv", found, strict=True)]), arrays


BACK: dict[str, tuple[tuple[DimLike, DimLike, int, int], str, bool]] = {
    "causal": ((70, 70, 16, 24), "", True),
    "heads_of_64": ((40, 130, 64, 64), "", False),
    "heads_of_128": ((33, 65, 128, 128), "", True),
    "masked": ((40, 70, 16, 16), "bool", False),
    "added": ((40, 70, 32, 8), "keys", True),
    "odd": ((33, 17, 5, 3), "add", True),
    "open": ((T, T, 32, 32), "", True),
}


@pytest.mark.parametrize("name", ["heads_of_64", "masked", "odd"])
def test_gradient_on_plain_units(name: str) -> None:
    graph, arrays = gradient(*BACK[name], narrow=False)
    spec, program = check(graph, arrays, tolerance=3e-6, reverse=name == "open")
    assert [k.op for k in spec.kernels][-1] == "attention_gradient"
    assert "graphc_plain_back_to_keys<" in program.source.split('extern "C" __global__')[-1]


@pytest.mark.parametrize("name", [n for n in BACK if n not in ("odd", "heads_of_64")])
def test_gradient_on_tensor_cores(name: str) -> None:
    precision = "f16" if name in ("added", "open") else "bf16"
    graph, arrays = gradient(*BACK[name], narrow=True)
    spec, program = compile_device(graph, {}, precision=precision)
    assert "graphc_attend_back_to_keys<" in program.source.split('extern "C" __global__')[-1]
    found, _ = execute(spec, program, graph, arrays, reverse=name == "open")
    fused, _ = pipeline.run(graph, keep=pipeline.device_kernels)
    narrow = store_narrow(fused, DType(precision), lambda op, lhs, rhs, packed: True)
    compare(found, interpret(narrow, arrays, {}), 1.2e-2 if precision == "bf16" else 2e-3)
