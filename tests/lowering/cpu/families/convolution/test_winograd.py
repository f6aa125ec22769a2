"""Winograd convolutions against PyTorch in f64: edges, tails, batches, threads; what is chosen, and how exact it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from graphc.lowering.cpu import vmath
from graphc.lowering.cpu.emit import Expr, kernel
from graphc.lowering.cpu.families.convolution.direct import ConvSpec
from graphc.lowering.cpu.families.convolution.winograd import emit_winograd
from graphc.lowering.cpu.families.convolution.winograd_spec import (
    POINTS,
    WinogradTile,
    choose_winograd,
    cut_winograd,
    even_odd,
    pack_winograd,
    scratch_bytes,
    transform_weights,
)
from graphc.lowering.cpu.features import CpuTarget
from tests.lowering.cpu.harness import TARGETS, build, guarded, misaligned, target_id

V3, V4 = TARGETS[1:]


@dataclass(frozen=True)
class Case:
    """One convolution; extents are the output's."""

    output: tuple[int, int]
    channels: int
    features: int
    batch: int = 2

    def spec(self, batch: Any = None) -> ConvSpec:
        n = self.batch if batch is None else batch
        ones = (1, 1)
        return ConvSpec(n, self.output, self.channels, self.features, (3, 3), ones, ones)


CASES = {
    "exact": Case((8, 12), 16, 32),
    "moved_back": Case((7, 10), 24, 40),
    "one_tile": Case((4, 4), 8, 8, batch=1),
    "few_channels": Case((9, 5), 5, 9),
    "panels": Case((6, 6), 20, 150, batch=3),
    "blocks": Case((30, 33), 8, 16, batch=1),
}


def check(
    case: Case,
    m: int,
    target: CpuTarget,
    *,
    symbolic: bool = False,
    threads: int = 3,
    tile: WinogradTile | None = None,
    tolerance: float = 5e-6,
) -> None:
    """relu(conv + bias + residual), written over the residual."""
    pointers = dict.fromkeys(("x", "w", "bias", "y", "scratch"), "float32")
    (h, width), c, o = case.output, case.channels, case.features
    with kernel("conv", pointers, dims=["n"] if symbolic else [], public=True) as k:
        spec = case.spec(k.dim("n") if symbolic else None)
        tile = tile or cut_winograd(spec, target, m)
        assert tile is not None
        n = spec.batch
        y, bias = k.view("y", (n, h, width, o)), k.view("bias", (o,))

        def finish(index: Any, value: Expr, lanes: int) -> None:
            value = value + bias.load(index[-1:], lanes) + y.load(index, lanes)
            y.store(vmath.relu(value), index)

        packed = (-(-o // tile.nr), tile.n**2, c, tile.nr)
        emit_winograd(
            spec,
            k.view("x", (n, h + 2, width + 2, c)),
            k.view("w", packed),
            finish,
            k.view("scratch", (1,)),
            tile=tile,
        )
    run = build(k, target)
    if not run.runnable:
        return
    rng = np.random.default_rng(3)
    x = rng.normal(size=(case.batch, c, h + 2, width + 2)).astype("f4")
    w = rng.normal(size=(o, c, 3, 3)).astype("f4")
    bias = rng.normal(size=o).astype("f4")
    residual = rng.normal(size=(case.batch, h, width, o)).astype("f4")
    y, intact = guarded(residual.shape)
    y[...] = residual
    scratch, kept = guarded((scratch_bytes(spec, tile) // 4,))
    last = misaligned(np.ascontiguousarray(np.moveaxis(x, 1, -1)))
    dims = (case.batch,) if symbolic else ()
    weights = misaligned(pack_winograd(w, tile.m, tile.nr))
    run(last, weights, misaligned(bias), y, scratch, *dims, threads=threads)
    exact = [torch.tensor(a).double() for a in (x, w, bias)]
    want = np.moveaxis(torch.nn.functional.conv2d(*exact).numpy(), 1, -1) + residual
    want = np.maximum(want, 0)
    assert np.abs(y - want).max() <= tolerance * np.abs(want).max()
    assert intact() and kept()


@pytest.mark.parametrize("m", POINTS)
@pytest.mark.parametrize("name", CASES)
def test_winograd(name: str, m: int) -> None:
    check(CASES[name], m, V3)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
@pytest.mark.parametrize("m", POINTS)
def test_on_every_target(m: int, target: CpuTarget) -> None:
    check(CASES["moved_back"], m, target)


@pytest.mark.parametrize("m", POINTS)
def test_symbolic_batch(m: int) -> None:
    check(CASES["panels"], m, V4, symbolic=True)


@pytest.mark.usefixtures("all_processors")
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_share_what_they_may(threads: int) -> None:
    tile = cut_winograd(CASES["panels"].spec(), V3, 4)
    assert tile is not None
    for slots in (1, 2, 3):
        check(
            CASES["panels"],
            4,
            V3,
            threads=threads,
            tile=replace(tile, slots=slots, block=4, blocks=3),
        )


@pytest.mark.parametrize(("m", "tolerance"), [(2, 1.5e-6), (4, 4e-6)])
def test_rounding_of_many_channels(m: int, tolerance: float) -> None:
    check(Case((8, 8), 512, 32, batch=1), m, V4, tolerance=tolerance)


@pytest.mark.parametrize("m", POINTS)
def test_transforms_are_exact_in_exact_arithmetic(m: int) -> None:
    # Small integers and their products with powers of 3/4 and 3/2 are exact in f64.
    rng = np.random.default_rng(0)
    n = m + 2
    image, filter_ = (
        rng.integers(-8, 8, (n, n)).astype(float),
        rng.integers(-8, 8, (3, 3)).astype(float),
    )
    whole, others = even_odd(m)
    rows = np.zeros((n, n))
    rows[0, 0:n:2], rows[-1, 1:n:2] = whole, whole
    for i, (point, polynomial) in enumerate(zip(POINTS[m], others, strict=True)):
        for sign in (1, -1):
            row = rows[1 + 2 * i + (sign < 0)]
            row[2 : 2 + 2 * len(polynomial) : 2] = polynomial
            row[1 : 1 + 2 * len(polynomial) : 2] = [sign * float(point) * c for c in polynomial]
    powers = [0.0, *(s * float(p) for p in POINTS[m] for s in (1, -1))]
    back = np.array([[p**i for p in powers] + [float(i == m - 1)] for i in range(m)])
    u = transform_weights(filter_.reshape(1, 1, 3, 3), m)[..., 0, 0]
    got = back @ (u * (rows @ image @ rows.T)) @ back.T
    want = [[(image[y : y + 3, x : x + 3] * filter_).sum() for x in range(m)] for y in range(m)]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-10)


def test_chosen_where_it_pays() -> None:
    def chosen(case: Case, **other: Any) -> int:
        tile = choose_winograd(replace(case.spec(), **other), V4)
        return tile.m if tile else 0

    big = Case((56, 56), 64, 64, batch=1)
    assert chosen(big) == 4
    assert chosen(Case((7, 7), 512, 512, batch=1)) != 4  # four tiles: all weights, hardly any rows
    assert chosen(Case((7, 7), 512, 512, batch=8)) == 4
    assert chosen(Case((3, 40), 64, 64)) == 2
    assert chosen(Case((56, 56), 3, 64)) == 0
    assert chosen(big, strides=(2, 2)) == chosen(big, dilation=(2, 2)) == 0
    assert chosen(big, groups=2) == chosen(big, dtype="float64") == chosen(big, kernel=(5, 5)) == 0
    assert choose_winograd(big.spec(), TARGETS[0]) is None  # without a fused multiply-add
