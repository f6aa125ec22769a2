"""Convolutions against PyTorch: tails, strides, dilation, groups, ranks, symbolic extents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from graphc.lowering.cpu import vmath
from graphc.lowering.cpu.emit import Expr, kernel
from graphc.lowering.cpu.families.convolution.direct import (
    ConvSpec,
    choose_conv,
    emit_conv,
    is_matmul,
)
from graphc.lowering.cpu.families.packing import pack_conv
from graphc.lowering.cpu.features import CpuTarget
from tests.lowering.cpu.harness import TARGETS, build, guarded, misaligned, target_id

V3 = TARGETS[1]


@dataclass(frozen=True)
class Case:
    """One convolution; spatial extents are the input's, without its halo."""

    spatial: tuple[int, ...]
    channels: int
    features: int
    kernel: tuple[int, ...]
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def output(self) -> tuple[int, ...]:
        return tuple(
            (s + 2 * self.padding - self.dilation * (k - 1) - 1) // self.stride + 1
            for s, k in zip(self.spatial, self.kernel, strict=True)
        )

    def spec(self, batch: Any, output: tuple[Any, ...] | None = None) -> ConvSpec:
        rank = len(self.spatial)
        return ConvSpec(
            batch,
            output or self.output,
            self.channels,
            self.features,
            self.kernel,
            (self.stride,) * rank,
            (self.dilation,) * rank,
            self.groups,
        )


CASES = {
    "lenet": Case((14, 14), 6, 16, (5, 5)),
    "stem": Case((29, 31), 3, 20, (7, 7), stride=2, padding=3),
    "wide": Case((9, 14), 16, 96, (3, 3), padding=1),
    "two_rows": Case((14, 7), 8, 32, (3, 3), padding=1),
    "strided_pixel": Case((9, 9), 12, 10, (1, 1), stride=2),
    "dilated": Case((12, 11), 5, 9, (3, 2), dilation=2, padding=2),
    "grouped": Case((8, 8), 24, 12, (3, 3), padding=1, groups=4),
    "one_feature_a_group": Case((8, 8), 6, 3, (3, 3), groups=3),
    "one_dimension": Case((50,), 10, 18, (5,), stride=2, padding=2),
    "three_dimensions": Case((5, 6, 7), 4, 6, (3, 2, 3), padding=1),
}


def check(case: Case, target: CpuTarget, symbolic: tuple[str, ...] = ()) -> None:
    """relu(conv + bias + residual) with some of "n", "h", "w" symbolic."""
    rank = len(case.spatial)
    names = [f"o{i}" for i in range(rank)]
    dims = [d for d in ("n", *names) if d in symbolic]
    batch = 2
    pointers = dict.fromkeys(("x", "w", "bias", "r", "y"), "float32")
    with kernel("conv", pointers, dims=dims, public=True) as k:
        n = k.dim("n") if "n" in dims else batch
        output = tuple(
            k.dim(d) if d in dims else o for d, o in zip(names, case.output, strict=True)
        )
        padded = [s + 2 * case.padding for s in case.spatial]
        spec = case.spec(n, output)
        tile = choose_conv(spec, target)
        per_group = case.features // case.groups
        packed = (case.groups, -(-per_group // tile.nr), *case.kernel)
        x = k.view("x", (n, *padded, case.channels))
        w = k.view("w", (*packed, case.channels // case.groups, tile.nr))
        bias = k.view("bias", (case.features,))
        r, y = (k.view(name, (n, *output, case.features)) for name in ("r", "y"))

        def finish(index: Any, value: Expr, lanes: int) -> None:
            value = value + bias.load(index[-1:], lanes) + r.load(index, lanes)
            y.store(vmath.relu(value), index)

        emit_conv(spec, target, x, w, finish)
    run = build(k, target)
    if not run.runnable:
        return
    rng = np.random.default_rng(3)
    x = rng.normal(size=(batch, case.channels, *case.spatial)).astype("f4")
    w = rng.normal(size=(case.features, case.channels // case.groups, *case.kernel)).astype("f4")
    bias = rng.normal(size=case.features).astype("f4")
    r = rng.normal(size=(batch, *case.output, case.features)).astype("f4")
    halo = [(0, 0), (0, 0), *[(case.padding, case.padding)] * rank]
    last = np.ascontiguousarray(np.moveaxis(np.pad(x, halo), 1, -1))
    y, intact = guarded(r.shape)
    weights = misaligned(pack_conv(w, tile.nr, case.groups))
    values = {"n": batch, **dict(zip(names, case.output, strict=True))}
    run(misaligned(last), weights, misaligned(bias), misaligned(r), y, *(values[d] for d in dims))
    conv = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
    want = conv[rank - 1](
        torch.tensor(x).double(),
        torch.tensor(w).double(),
        torch.tensor(bias).double(),
        case.stride,
        case.padding,
        case.dilation,
        case.groups,
    ).numpy()
    want = np.maximum(np.moveaxis(want, 1, -1) + r, 0)
    assert np.abs(y - want).max() <= 1e-5 * np.abs(want).max()
    assert intact()


@pytest.mark.parametrize("name", CASES)
def test_conv(name: str) -> None:
    check(CASES[name], V3)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
@pytest.mark.parametrize("name", ["stem", "wide", "grouped"])
def test_conv_on_every_target(name: str, target: CpuTarget) -> None:
    check(CASES[name], target)


@pytest.mark.parametrize("name", ["lenet", "wide", "grouped", "one_dimension"])
def test_symbolic_batch(name: str) -> None:
    check(CASES[name], V3, ("n",))


@pytest.mark.parametrize("name", ["lenet", "stem", "one_dimension", "three_dimensions"])
def test_everything_symbolic(name: str) -> None:
    # The input's own extents stay known here, so its strides are; only loop extents are symbolic.
    check(CASES[name], V3, ("n", "o0", "o1", "o2"))


def test_packing() -> None:
    w = np.arange(6 * 2 * 3 * 1).reshape(6, 2, 3, 1)
    packed = pack_conv(w, 2, groups=2)
    assert packed.shape == (2, 2, 3, 1, 2, 2)
    assert packed[1, 0, 2, 0, 1, 1] == w[4, 1, 2, 0]
    assert not packed[:, 1, ..., 1].any()


def test_products_are_recognised() -> None:
    pixel = Case((8, 8), 16, 8, (1, 1))
    assert is_matmul(pixel.spec(1))
    assert not is_matmul(CASES["strided_pixel"].spec(1))
    assert not is_matmul(Case((8, 8), 16, 8, (1, 1), groups=2).spec(1))


def test_tiles_follow_the_shape() -> None:
    v4 = TARGETS[2]
    seven = choose_conv(Case((7, 7), 512, 512, (3, 3), padding=1).spec(1), v4)
    assert not seven.pixels_first and seven.ahead
    wide = choose_conv(Case((56, 56), 64, 64, (3, 3), padding=1).spec(1), v4)
    assert wide.pixels_first and wide.threads and not wide.ahead
    assert choose_conv(Case((8, 8), 6, 3, (3, 3), groups=3).spec(1), v4).lanes == 1


def test_mismatched_specs_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in rank"):
        ConvSpec(1, (4, 4), 2, 2, (3,), (1, 1), (1, 1))
    with pytest.raises(ValueError, match="3 channels and 4 features in 2 groups"):
        ConvSpec(1, (4,), 3, 4, (3,), (1,), (1,), 2)
