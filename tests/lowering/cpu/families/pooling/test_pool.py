"""Pooling against PyTorch and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphc.lowering.cpu.emit import kernel
from graphc.lowering.cpu.families.pooling.pool import PoolSpec, emit_pool
from graphc.lowering.cpu.features import CpuTarget
from tests.lowering.cpu.harness import TARGETS, build, guarded, misaligned, target_id

V3 = TARGETS[1]


def pooled(
    spec: PoolSpec, x: np.ndarray, target: CpuTarget = V3, symbolic: bool = False
) -> np.ndarray | None:
    """`spec` applied to `x` [N, *S, C], with batch and spatial extents symbolic if asked."""
    rank = len(spec.output)
    names = ["n", *(f"i{d}" for d in range(rank)), *(f"o{d}" for d in range(rank))]
    dims = names if symbolic else []
    with kernel("pool", dict.fromkeys("xy", spec.dtype), dims=dims, public=True) as k:
        if symbolic:
            n, *rest = (k.dim(d) for d in dims)
            size, output = tuple(rest[:rank]), tuple(rest[rank:])
        else:
            n, size, output = spec.batch, spec.input, spec.output
        made = PoolSpec(**{**vars(spec), "batch": n, "input": size, "output": output})
        y = k.view("y", (n, *output, spec.channels))
        x_view = k.view("x", (n, *size, spec.channels))
        emit_pool(made, target, x_view, lambda i, v, _: y.store(v, i))
    run = build(k, target)
    if not run.runnable:
        return None
    out, intact = guarded((spec.batch, *spec.output, spec.channels), spec.dtype)
    values = (spec.batch, *spec.input, *spec.output) if symbolic else ()
    run(misaligned(x), out, *values)
    assert intact()
    return out.copy()


def spec_of(
    kind: str, x: np.ndarray, window: Any, stride: Any, padding: Any, **more: Any
) -> PoolSpec:
    size = x.shape[1:-1]
    dilation = more.pop("dilation", (1,) * len(size))
    output = tuple(
        (s + lo + hi - d * (w - 1) - 1) // t + 1
        for s, w, t, (lo, hi), d in zip(size, window, stride, padding, dilation, strict=True)
    )
    return PoolSpec(
        kind, x.shape[0], size, output, x.shape[-1], window, stride, padding, dilation, **more
    )


def naive(spec: PoolSpec, x: np.ndarray) -> np.ndarray:
    """Window by window in float64."""
    fill = -np.inf if spec.kind == "max" else 0.0
    pads = [(0, 0), *[(max(lo, 0), max(hi, 0)) for lo, hi in spec.padding], (0, 0)]
    padded = np.pad(x.astype("f8"), pads, constant_values=fill)
    exists = np.pad(np.ones_like(x, "f8"), pads)
    crop = (slice(None), *(slice(max(-lo, 0), None) for lo, _ in spec.padding))
    padded, exists = padded[crop], exists[crop]
    out = np.zeros((spec.batch, *spec.output, spec.channels))
    for o in np.ndindex(*spec.output):
        index = tuple(
            slice(i * s, i * s + (w - 1) * d + 1, d)
            for i, s, w, d in zip(o, spec.strides, spec.window, spec.dilation, strict=True)
        )
        part, there = padded[(slice(None), *index)], exists[(slice(None), *index)]
        axes = tuple(range(1, part.ndim - 1))
        if spec.kind == "max":
            value = part.max(axes)
        else:
            value = part.sum(axes)
            if spec.kind == "average":
                whole = float(np.prod(spec.window))
                count = whole if spec.count_include_pad else there.sum(axes)
                value = value / (spec.divisor or count)
        out[(slice(None), *o)] = value
    return out


CASES: dict[str, tuple[tuple[int, ...], Any, Any, Any, dict[str, Any]]] = {
    "halves": ((2, 8, 8, 20), (2, 2), (2, 2), ((0, 0), (0, 0)), {}),
    "resnet": ((1, 15, 16, 37), (3, 3), (2, 2), ((1, 1), (1, 1)), {}),
    "uneven": ((2, 7, 9, 6), (3, 2), (1, 2), ((2, 0), (0, 1)), {}),
    "cropped": ((1, 9, 9, 5), (2, 2), (2, 2), ((-1, 0), (0, -2)), {}),
    "dilated": ((1, 12, 11, 9), (3, 3), (1, 1), ((2, 2), (2, 2)), {"dilation": (2, 2)}),
    "one": ((2, 30, 70), (5,), (2,), ((2, 2),), {}),
    "three": ((1, 5, 6, 7, 4), (2, 3, 3), (1, 2, 2), ((0, 1), (1, 1), (1, 1)), {}),
}


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize("kind", ["max", "sum", "average", "average_existing"])
@pytest.mark.parametrize("name", CASES)
def test_windows(name: str, kind: str, symbolic: bool) -> None:
    shape, window, stride, padding, more = CASES[name]
    x = np.random.default_rng(0).normal(size=shape).astype("f4")
    include = kind != "average_existing"
    kind = kind.partition("_")[0]
    spec = spec_of(kind, x, window, stride, padding, count_include_pad=include, **more)
    got = pooled(spec, x, symbolic=symbolic)
    if got is not None:
        assert np.allclose(got, naive(spec, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_maximum_keeps_nan_on_every_target(target: CpuTarget) -> None:
    x = np.random.default_rng(1).normal(size=(1, 9, 9, 21)).astype("f4")
    x[0, 4, 4, 3] = x[0, 0, 0, 20] = np.nan
    x[0, 8, 8, :] = -np.inf
    got = pooled(spec_of("max", x, (3, 3), (2, 2), ((1, 1), (1, 1))), x, target)
    if got is not None:
        source = torch.tensor(x).permute(0, 3, 1, 2)
        want = torch.nn.functional.max_pool2d(source, 3, 2, 1).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(got, want, equal_nan=True)


def test_integers_and_divisors() -> None:
    x = np.random.default_rng(2).integers(-9, 9, (1, 6, 6, 10)).astype("i4")
    spec = spec_of("max", x, (2, 2), (1, 1), ((1, 0), (1, 0)), dtype="int32")
    got = pooled(spec, x)
    if got is not None:
        assert np.array_equal(got, naive(spec, x))
    y = x.astype("f8")
    spec = spec_of("average", y, (2, 2), (2, 2), ((0, 0), (0, 0)), divisor=3, dtype="float64")
    got = pooled(spec, y)
    if got is not None:
        assert np.allclose(got, naive(spec, y), rtol=1e-15)


def test_bad_specs_are_refused() -> None:
    x = np.zeros((1, 4, 4, 2), "f4")
    with pytest.raises(ValueError, match="'median' is not one of"):
        spec_of("median", x, (2, 2), (1, 1), ((0, 0), (0, 0)))
    with pytest.raises(ValueError, match="differ in rank"):
        PoolSpec("max", 1, (4,), (2, 2), 3, (2, 2), (1, 1), ((0, 0),) * 2, (1, 1))
