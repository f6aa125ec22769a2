"""Fused attention against its NumPy meaning: odd sizes, any number of queries, masks, strides, targets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ir.types import TensorType
from graphc.lowering.cpu.families.attention.kernel import AttentionSpec, choose_vectors
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.select import select
from graphc.ops import Add, Attention, Fusion, Input, Transpose
from tests.lowering.cpu.bodies import Kernels
from tests.lowering.cpu.harness import TARGETS, can_run, target_id

ANY: Mapping[str, Bounds] = {"N": Bounds(1, None), "T": Bounds(1, None), "S": Bounds(1, None)}
Shape = tuple[DimLike, ...]


def attention(
    q: Shape,
    k: Shape,
    v: Shape,
    mask: TensorType | None = None,
    *,
    causal: bool = False,
    dtype: DType = DType.F32,
    turned: bool = False,
    dims: Mapping[str, Bounds] | None = None,
) -> Graph:
    """The body; `turned`: operands and result lie as [B, T, h, d], and something is added at the end."""
    b = GraphBuilder("body", dims or {})
    swap = Transpose((0, 2, 1, 3))
    values = []
    for i, shape in enumerate((q, k, v)):
        lies = tuple(shape[p] for p in swap.permutation) if turned else shape
        x = b(Input(f"x{i}", dtype, lies))
        values.append(b(swap, x) if turned else x)
    if mask is not None:
        values.append(b(Input("mask", mask.dtype, mask.shape)))
    y = b(Attention(0.3, causal), *values)
    if turned:
        y = b(swap, b(Add(), y, y))
    return b.build([("y", y)])


def emit(body: Graph, target: CpuTarget, io: KernelIO) -> None:
    kernel = select(Fusion("attention", body), frozenset(), target)
    assert kernel.family == "attention" and kernel.scratch == 0
    kernel.emit(io)


def operands(body: Graph, dims: Mapping[str, int], seed: int = 0) -> list[np.ndarray]:
    """Random ones; a third of a mask hides, and of its first row everything."""
    rng = np.random.default_rng(seed)
    found = []
    for node in body.inputs:
        (type,) = node.types
        shape = type.concrete(dims)
        if node.op.attributes()["label"] != "mask":
            found.append(rng.normal(size=shape).astype(type.dtype.numpy))
            continue
        hidden = rng.random(shape) < 0.3
        hidden.reshape(-1, shape[-1])[0] = True
        dense = rng.normal(size=shape)
        dense[hidden] = -np.inf
        found.append(~hidden if type.dtype is DType.BOOL else dense.astype(type.dtype.numpy))
    return found


def check(run: Kernels, name: str, dims: Mapping[str, int]) -> None:
    body = run.bodies[name]
    given = operands(body, dims)
    (got,) = run(name, *given, **dims)
    fusion = Fusion("attention", body).substitute(dims)
    (want,) = fusion.evaluate(*given)
    tolerance = 2e-6 if got.dtype == np.float32 else 1e-13
    assert np.isfinite(got).all()
    assert np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max()), name


CASES = {
    "one": attention((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)),
    "odd": attention((2, 3, 19, 5), (2, 3, 37, 5), (2, 3, 37, 23)),
    "even": attention((1, 2, 64, 16), (1, 2, 32, 16), (1, 2, 32, 32)),
    "causal": attention((1, 2, 70, 8), (1, 2, 70, 8), (1, 2, 70, 8), causal=True),
    "ahead": attention((1, 1, 40, 8), (1, 1, 21, 8), (1, 1, 21, 8), causal=True),
    "many keys": attention((1, 1, 5, 8), (1, 1, 700, 8), (1, 1, 700, 12)),
    "turned": attention((2, 3, 33, 16), (2, 3, 33, 16), (2, 3, 33, 16), turned=True),
    "turned causal": attention(
        (2, 1, 33, 20), (2, 1, 33, 20), (2, 1, 33, 20), turned=True, causal=True
    ),
    "padding": attention(
        (2, 3, 18, 8), (2, 3, 29, 8), (2, 3, 29, 8), TensorType(DType.BOOL, (2, 1, 1, 29))
    ),
    "bool": attention(
        (2, 3, 18, 8), (2, 3, 29, 8), (2, 3, 29, 8), TensorType(DType.BOOL, (2, 3, 18, 29))
    ),
    "added": attention(
        (2, 3, 35, 8), (2, 3, 29, 8), (2, 3, 29, 8), TensorType(DType.F32, (1, 3, 35, 29))
    ),
    "double": attention(
        (2, 2, 19, 7),
        (2, 2, 400, 7),
        (2, 2, 400, 9),
        TensorType(DType.F64, (2, 1, 19, 400)),
        dtype=DType.F64,
        causal=True,
    ),
}


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_static_sizes(target: CpuTarget) -> None:
    some = CASES if target.fma else {n: CASES[n] for n in ("odd", "turned causal", "added")}
    run = Kernels({n.replace(" ", "_"): b for n, b in some.items()}, emit, target)
    if can_run(target):
        for name in run.bodies:
            check(run, name, {})


def test_any_number_of_queries_and_keys() -> None:
    n, t, s = (Dim.symbol(x) for x in "NTS")
    bodies = {
        "cross": attention(
            (n, 3, t, 9),
            (n, 3, s, 9),
            (n, 3, s, 11),
            TensorType(DType.BOOL, (n, 1, 1, s)),
            dims=ANY,
        ),
        "dense": attention(
            (1, 2, t, 8),
            (1, 2, s, 8),
            (1, 2, s, 8),
            TensorType(DType.F32, (1, 1, t, s)),
            dims={d: ANY[d] for d in "TS"},
        ),
        "causal": attention(
            (n, 2, t, 16),
            (n, 2, t, 16),
            (n, 2, t, 16),
            causal=True,
            turned=True,
            dims={d: ANY[d] for d in "NT"},
        ),
    }
    run = Kernels(bodies, emit)
    for queries, keys in ((1, 1), (2, 300), (16, 15), (31, 257), (65, 40), (130, 600)):
        for name, body in bodies.items():
            check(run, name, {d: {"N": 2, "T": queries, "S": keys}[d] for d in body.dims})


def test_large_scores_do_not_overflow_and_nan_stays() -> None:
    body = attention((1, 1, 20, 8), (1, 1, 30, 8), (1, 1, 30, 8))
    run = Kernels({"large": body}, emit)
    q, k, v = operands(body, {})
    (got,) = run("large", q * 300, k * 300, v)
    (want,) = Fusion("attention", body).evaluate(q * 300, k * 300, v)
    assert np.allclose(got, want, atol=1e-2)
    q[0, 0, 3, 2] = np.nan
    (got,) = run("large", q, k, v)
    assert np.isnan(got[0, 0, 3]).all() and np.isfinite(np.delete(got, 3, 2)).all()


def test_blocks_of_queries_fit_their_number() -> None:
    def vectors(queries: int, causal: bool = False) -> int:
        spec = AttentionSpec((1, 12), queries, queries, 64, 64, 0.125, causal)
        return choose_vectors(spec, TARGETS[2])

    assert vectors(128) == 2 and vectors(16) == 1 and vectors(96) == 3
    assert vectors(128, causal=True) == 2
