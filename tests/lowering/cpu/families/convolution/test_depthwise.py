"""Depthwise convolutions against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphc.lowering.cpu.emit import Expr, kernel
from graphc.lowering.cpu.families.convolution.depthwise import DepthwiseSpec, emit_depthwise
from graphc.lowering.cpu.families.packing import pack_depthwise
from graphc.lowering.cpu.features import CpuTarget
from tests.lowering.cpu.harness import TARGETS, build, guarded, misaligned, target_id


def check(
    spatial: tuple[int, ...],
    channels: int,
    size: tuple[int, ...],
    stride: int,
    dilation: int,
    padding: int,
    target: CpuTarget,
    symbolic: bool = False,
) -> None:
    rank, batch = len(spatial), 2
    output = tuple(
        (s + 2 * padding - dilation * (k - 1) - 1) // stride + 1
        for s, k in zip(spatial, size, strict=True)
    )
    dims = ["n", *(f"o{i}" for i in range(rank))] if symbolic else []
    with kernel("dw", dict.fromkeys("xwby", "float32"), dims=dims, public=True) as k:
        n, *extents = (k.dim(d) for d in dims) if symbolic else (batch, *output)
        spec = DepthwiseSpec(
            n, tuple(extents), channels, size, (stride,) * rank, (dilation,) * rank
        )
        padded = [s + 2 * padding for s in spatial]
        y, b = k.view("y", (n, *extents, channels)), k.view("b", (channels,))

        def finish(index: Any, value: Expr, lanes: int) -> None:
            y.store(value + b.load(index[-1:], lanes), index)

        x, w = k.view("x", (n, *padded, channels)), k.view("w", (*size, channels))
        emit_depthwise(spec, target, x, w, finish)
    run = build(k, target)
    if not run.runnable:
        return
    rng = np.random.default_rng(5)
    x = rng.normal(size=(batch, channels, *spatial)).astype("f4")
    w = rng.normal(size=(channels, 1, *size)).astype("f4")
    b = rng.normal(size=channels).astype("f4")
    halo = [(0, 0), (0, 0), *[(padding, padding)] * rank]
    last = np.ascontiguousarray(np.moveaxis(np.pad(x, halo), 1, -1))
    out, intact = guarded((batch, *output, channels))
    values = (batch, *output) if symbolic else ()
    run(misaligned(last), misaligned(pack_depthwise(w)), misaligned(b), out, *values)
    conv = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
    double = (torch.tensor(a).double() for a in (x, w, b))
    want = conv[rank - 1](*double, stride, padding, dilation, channels).numpy()
    want = np.moveaxis(want, 1, -1)
    assert np.abs(out - want).max() <= 1e-5 * np.abs(want).max()
    assert intact()


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
@pytest.mark.parametrize("channels", [1, 3, 16, 23, 37])
def test_channels_and_tails(channels: int, target: CpuTarget) -> None:
    check((9, 10), channels, (3, 3), 1, 1, 1, target)


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize(
    ("spatial", "size", "stride", "dilation", "padding"),
    [
        ((14, 15), (3, 3), 2, 1, 1),
        ((12, 40), (5, 3), 1, 2, 2),
        ((9, 9), (7, 7), 1, 1, 3),
        ((30,), (5,), 1, 1, 2),
        ((4, 5, 6), (2, 3, 3), 1, 1, 1),
    ],
)
def test_windows(
    spatial: tuple[int, ...],
    size: tuple[int, ...],
    stride: int,
    dilation: int,
    padding: int,
    symbolic: bool,
) -> None:
    check(spatial, 20, size, stride, dilation, padding, TARGETS[1], symbolic)


def test_mismatched_specs_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in rank"):
        DepthwiseSpec(1, (4, 4), 2, (3,), (1, 1), (1, 1))
