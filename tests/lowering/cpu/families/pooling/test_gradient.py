"""The gradient of max pooling: its loops, and whole graphs around it, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.autodiff import gradients
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.cpu.emit import kernel
from graphc.lowering.cpu.families.pooling.gradient import emit_pool_gradient
from graphc.lowering.cpu.families.pooling.pool import PoolSpec
from graphc.lowering.cpu.features import CpuTarget, parse_target
from graphc.lowering.cpu.select import select
from graphc.lowering.generate import generate
from graphc.lowering.precision import lower_precision
from graphc.ops import ConvGeneral, Fusion, Input, MaxPool, MaxPoolGradient, Relu, arith
from graphc.passes import pipeline
from tests.lowering.compiled import TILES, check
from tests.lowering.cpu.families.pooling.test_pool import CASES, spec_of
from tests.lowering.cpu.harness import TARGETS, build, guarded, misaligned, target_id

V3 = TARGETS[1]


def with_ties(shape: tuple[int, ...], dtype: str = "f4") -> np.ndarray:
    """Small integers, some infinite, and NaN in a few windows."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, shape).astype(dtype)
    x[rng.random(shape) < 0.2] = -np.inf
    x[rng.random(shape) < 0.01] = np.nan
    return x


def compare(spec: PoolSpec, x: np.ndarray, target: CpuTarget = V3, symbolic: bool = False) -> None:
    """The kernel on x and a cotangent against `MaxPoolGradient.evaluate`."""
    rank = len(spec.output)
    names = ["n", *(f"i{d}" for d in range(rank)), *(f"o{d}" for d in range(rank)), "c"]
    dims = names if symbolic else []
    with kernel("g", dict.fromkeys(("x", "dy", "s", "dx"), spec.dtype), dims, public=True) as k:
        if symbolic:
            n, *rest, channels = (k.dim(d) for d in dims)
            size, output = tuple(rest[:rank]), tuple(rest[rank:])
        else:
            n, size, output, channels = spec.batch, spec.input, spec.output, spec.channels
        changed = {"batch": n, "input": size, "output": output, "channels": channels}
        whole, pooled = (n, *size, channels), (n, *output, channels)
        x_view, dx = k.view("x", whole), k.view("dx", whole)
        dy, scratch = k.view("dy", pooled), k.view("s", pooled)
        made = PoolSpec(**{**vars(spec), **changed})
        emit_pool_gradient(made, target, x_view, dy, scratch, lambda i, v, _: dx.store(v, i))
    run = build(k, target)
    if not run.runnable:
        return
    shape = (spec.batch, *spec.output, spec.channels)
    given = np.random.default_rng(1).integers(-9, 9, shape).astype(x.dtype)
    noted, intact = guarded(shape, spec.dtype)
    out, whole_intact = guarded(x.shape, spec.dtype)
    values = (spec.batch, *spec.input, *spec.output, spec.channels) if symbolic else ()
    run(misaligned(x), misaligned(given), noted, out, *values)
    assert intact() and whole_intact()
    op = MaxPoolGradient(spec.window, spec.strides, spec.padding, spec.dilation, True)
    np.testing.assert_array_equal(out, op.evaluate(x, given)[0])


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize("name", CASES)
def test_windows(name: str, symbolic: bool) -> None:
    shape, window, stride, padding, more = CASES[name]
    x = with_ties(shape)
    compare(spec_of("max", x, window, stride, padding, **more), x, symbolic=symbolic)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_targets(target: CpuTarget, dtype: str) -> None:
    x = with_ties((2, 9, 10, 45), dtype)
    compare(spec_of("max", x, (3, 3), (2, 2), ((1, 1), (1, 1)), dtype=dtype), x, target)


def test_windows_apart_leave_zeros_between_them() -> None:
    x = with_ties((2, 8, 9, 6))
    compare(spec_of("max", x, (2, 2), (3, 3), ((0, 1), (1, 0))), x)


def step(batch: DimLike, channels_last: bool) -> Graph:
    """Relu, pooling, and the gradient by what comes before both: the kernel has the first op's gradient behind it."""
    b = GraphBuilder("step", {"N": Bounds()} if isinstance(batch, Dim) else {})
    shape = (batch, 9, 8, 20) if channels_last else (batch, 20, 9, 8)
    x = b(Input("x", DType.F32, shape))
    pool = MaxPool((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), channels_last)
    y = b(pool, b(Relu(), x))
    given = b(Input("dy", DType.F32, (batch, 5 * 4 * 20)))
    given = arith.reshape(b, given, b.type_of(y).shape)
    (dx,) = gradients(b, arith.sum(b, arith.multiply(b, y, given)), [x])
    return b.build([("y", y), ("dx", dx)])


@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
def test_a_training_step_keeps_it_in_one_kernel(channels_last: bool) -> None:
    graph = step(Dim.symbol("N"), channels_last)
    rng = np.random.default_rng(2)
    shape = (3, 9, 8, 20) if channels_last else (3, 20, 9, 8)
    x = rng.integers(-3, 4, shape).astype(np.float32)
    check(graph, {"x": x, "dy": rng.normal(size=(3, 400)).astype(np.float32)})
    fused, _ = pipeline.run(graph)
    bodies = [
        {m.op.name for m in n.op.body.nodes}
        for n in fused.nodes
        if isinstance(n.op, Fusion) and select(n.op, frozenset(), V3).family == "pool_gradient"
    ]
    assert len(bodies) == 1
    if channels_last:
        assert {"max_pool_gradient", "select"} <= bodies[0]


def test_operands_stored_in_bfloat16_are_widened_where_they_are_read() -> None:
    b = GraphBuilder("step")
    x, w = b(Input("x", DType.F32, (1, 16, 8, 8))), b(Input("w", DType.F32, (32, 16, 3, 3)))
    h = b(Relu(), b(ConvGeneral.simple(2, padding=1), x, w))
    y = b(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), h)
    (dw,) = gradients(b, arith.sum(b, arith.multiply(b, y, y)), [w])
    fused, _ = pipeline.run(b.build([("dw", dw)]), tiles=True)
    lowered, _ = lower_precision(fused, "bf16", parse_target(TILES))
    (found,) = (
        node
        for node in lowered.nodes
        if isinstance(node.op, Fusion)
        and select(node.op, frozenset(), parse_target(TILES)).family == "pool_gradient"
    )
    assert {lowered.type_of(v).dtype for v in found.operands} == {DType.BF16}
    assert generate(fused, {}, target=TILES, precision="bf16")[1]
