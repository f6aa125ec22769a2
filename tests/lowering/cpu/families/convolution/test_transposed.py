"""Transposed convolutions against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphc.lowering.cpu.emit import Expr, kernel
from graphc.lowering.cpu.families.convolution.transposed import (
    HoledConvSpec,
    choose_holed_conv,
    emit_holed_conv,
    halo,
)
from graphc.lowering.cpu.families.packing import pack_conv
from tests.lowering.cpu.harness import TARGETS, build, guarded, misaligned

V3 = TARGETS[1]


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize(
    ("spatial", "channels", "features", "size", "stride", "padding", "extra", "dilation", "groups"),
    [
        ((5, 6), 8, 20, (2, 2), 2, 0, 0, 1, 1),
        ((7, 4), 3, 17, (4, 4), 2, 1, 0, 1, 1),
        ((4, 5), 4, 6, (3, 3), 2, 1, 1, 1, 2),
        ((4, 4), 5, 9, (2, 3), 3, 0, 1, 1, 1),
        ((5, 5), 4, 8, (3, 3), 2, 2, 0, 2, 1),
        ((9,), 6, 10, (5,), 3, 1, 2, 1, 1),
        ((3, 4, 2), 3, 5, (3, 2, 3), 2, 0, 0, 1, 1),
    ],
)
def test_conv_transpose(
    spatial: tuple[int, ...],
    channels: int,
    features: int,
    size: tuple[int, ...],
    stride: int,
    padding: int,
    extra: int,
    dilation: int,
    groups: int,
    symbolic: bool,
) -> None:
    rank, batch = len(spatial), 2
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, channels, *spatial)).astype("f4")
    w = rng.normal(size=(channels, features // groups, *size)).astype("f4")
    functions = (
        torch.nn.functional.conv_transpose1d,
        torch.nn.functional.conv_transpose2d,
        torch.nn.functional.conv_transpose3d,
    )
    double = (torch.tensor(x).double(), torch.tensor(w).double(), None)
    want = functions[rank - 1](*double, stride, padding, extra, groups, dilation).numpy()
    want = np.moveaxis(want, 1, -1)
    # As conv_general: the kernel turned round, O I/g *K, and the padding that keeps its overlap.
    axes = tuple(range(2, 2 + rank))
    turned = np.flip(w, axes).reshape(groups, channels // groups, features // groups, *size)
    turned = np.swapaxes(turned, 1, 2).reshape(features, channels // groups, *size)
    pads = [((k - 1) * dilation - padding, (k - 1) * dilation - padding + extra) for k in size]
    holes = (stride,) * rank
    around = halo(pads, holes)
    before = tuple(low - a * stride for (low, _), (a, _) in zip(pads, around, strict=True))
    output = want.shape[1:-1]
    dims = ["n", *(f"o{d}" for d in range(rank))] if symbolic else []
    with kernel("up", dict.fromkeys("xwy", "float32"), dims=dims, public=True) as k:
        n, *extents = (k.dim(d) for d in dims) if symbolic else (batch, *output)
        spec = HoledConvSpec(
            n, tuple(extents), channels, features, size, (dilation,) * rank, holes, before, groups
        )
        tile = choose_holed_conv(spec, V3)
        packed = pack_conv(turned, tile.nr, groups)
        padded = [s + a + b for s, (a, b) in zip(spatial, around, strict=True)]
        y = k.view("y", (n, *extents, features))

        def finish(index: Any, value: Expr, _: int) -> None:
            y.store(value, index)

        x_view = k.view("x", (n, *padded, channels))
        emit_holed_conv(spec, V3, x_view, k.view("w", packed.shape), finish)
    run = build(k, V3)
    if not run.runnable:
        return
    last = np.moveaxis(np.pad(x, [(0, 0), (0, 0), *around]), 1, -1)
    # Canaries of NaN around the input show a read outside of its halo.
    source, _ = guarded(last.shape)
    source[...] = last
    out, intact = guarded(want.shape)
    run(source, misaligned(packed), out, *((batch, *output) if symbolic else ()))
    assert np.abs(out - want).max() <= 1e-5 * np.abs(want).max()
    assert intact()


def test_whole_elements_of_padding_are_refused() -> None:
    with pytest.raises(ValueError, match="halo"):
        HoledConvSpec(1, (4,), 1, 1, (3,), (1,), (2,), (2,))
