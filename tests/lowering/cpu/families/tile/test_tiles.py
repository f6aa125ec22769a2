"""Products and convolutions on AMX tiles against NumPy: rounded operands, exact sums. Compiled everywhere, run where
the CPU has tiles."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc.lowering.cpu.bfloat import rounded
from graphc.lowering.cpu.emit import Expr, kernel
from graphc.lowering.cpu.families.tile.amx import Blocks, chunk_depth, pack_tiles, packed_words
from graphc.lowering.cpu.families.tile.conv import TileConv, emit_tile_conv, pack_tile_conv
from graphc.lowering.cpu.families.tile.matmul import (
    TileProduct,
    emit_tile_product,
    tile_scratch,
)
from graphc.lowering.cpu.features import parse_target
from tests.lowering.cpu.harness import Library, build, can_run, guarded, misaligned

TARGET = parse_target("x86-64-v4+amx_tile+amx_bf16+avx512_bf16")
RUNS = pytest.param(None, id="run" if can_run(TARGET) else "(compile-only-on-this-machine: no AMX)")
LAYOUTS = ("packed", "rows", "columns")
F4, U2 = np.float32, np.uint16


def parts(x: np.ndarray, split: bool) -> list[np.ndarray]:
    """The bfloat16 numbers that stand for float32 ones."""
    high = x.astype(ml_dtypes.bfloat16)
    rest = (x - high.astype(F4)).astype(ml_dtypes.bfloat16)
    return [high, rest] if split else [high]


def meaning(x: np.ndarray, split: bool) -> np.ndarray:
    """What the parts add up to."""
    return sum((p.astype(np.float64) for p in parts(x, split)), np.zeros(x.shape))


def words(x: np.ndarray) -> np.ndarray:
    """Between canaries that are NaN, one element off a cache line: reading beyond shows."""
    return misaligned(np.ascontiguousarray(x).view(U2))


def allow_tiles() -> None:
    """Linux hands out the tile registers on request."""
    assert ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0


def compile_product(spec: TileProduct, rows: int | None, out: str = "float32") -> Library:
    names = ["a", "a_low"][: spec.parts]
    factors = ["b"] if spec.b == "packed" else ["b", "b_low"][: spec.parts]
    pointers = dict.fromkeys((*names, *factors, "scratch"), "uint16") | {"c": out}
    with kernel("product", pointers, dims=("m",), public=True) as k:
        m: Any = k.dim("m") if rows is None else rows
        spec = TileProduct(m, spec.n, spec.k, spec.batch, spec.b, spec.split)
        a = [k.view(name, (*spec.batch, m, spec.k)) for name in names]
        if spec.b == "packed":
            b = [k.view("b", (*spec.batch, packed_words(spec.k, spec.n, split=spec.split)))]
        else:
            shape = (spec.k, spec.n) if spec.b == "rows" else (spec.n, spec.k)
            b = [k.view(name, (*spec.batch, *shape)) for name in factors]
        c = k.view("c", (*spec.batch, m, spec.n))

        def finish(index: Any, value: Expr, lanes: int) -> None:
            c.store(rounded(value, TARGET) if out == "bfloat16" else value, index)

        emit_tile_product(spec, a, b, finish, scratch=k.view("scratch", (1,)))
    return build(k, TARGET)


def check_product(run: Library, spec: TileProduct, m: int) -> None:
    allow_tiles()
    rng = np.random.default_rng(m)
    a = rng.standard_normal((*spec.batch, m, spec.k)).astype(F4)
    b = rng.standard_normal((*spec.batch, spec.k, spec.n)).astype(F4)
    out, intact = guarded((*spec.batch, m, spec.n))
    room, room_intact = guarded((int(tile_scratch(spec)) // 2 + 1,), "uint16")
    if spec.b == "packed":
        factors = [misaligned(pack_tiles(b, spec.depth, spec.shape.across, split=spec.split))]
    else:
        turned = b if spec.b == "rows" else np.swapaxes(b, -1, -2)
        factors = [words(p) for p in parts(turned, spec.split)]
    run(*(words(p) for p in parts(a, spec.split)), *factors, room, out, m)
    want = meaning(a, spec.split) @ meaning(b, spec.split)
    # Split products leave out low times low: 2^-9 of 2^-9.
    tolerance = 2e-5 if spec.split else 2e-6
    assert np.abs(out - want).max(initial=0) <= tolerance * max(1, np.abs(want).max(initial=0))
    assert intact() and room_intact()


@pytest.mark.parametrize("runs", [RUNS])
@pytest.mark.parametrize("split", [False, True], ids=["bf16", "high"])
@pytest.mark.parametrize(
    ("m", "n", "k", "layout"),
    [
        (1, 10, 16, "packed"),
        (5, 70, 24, "packed"),
        (49, 40, 48, "packed"),
        (33, 100, 32, "packed"),
        (17, 16, 10, "packed"),
        (5, 70, 24, "rows"),
        (33, 40, 32, "rows"),
        (5, 70, 24, "columns"),
        (33, 40, 32, "columns"),
    ],
)
def test_products(m: int, n: int, k: int, layout: str, split: bool, runs: None) -> None:
    spec = TileProduct(m, n, k, (), layout, split)
    assert spec.fits
    run = compile_product(spec, m)
    if run.runnable:
        check_product(run, spec, m)


@pytest.mark.parametrize("runs", [RUNS])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_number_of_rows_and_batches(layout: str, runs: None) -> None:
    spec = TileProduct(1, 40, 64, (3,), layout)
    open_rows = TileProduct(100, 40, 64, (3,), layout)  # scratch is the same for any number of rows
    run = compile_product(open_rows, None)
    if run.runnable:
        for m in (0, 1, 2, 31, 33, 70):
            check_product(run, TileProduct(m + 17, 40, 64, (3,), layout), m)
    assert tile_scratch(spec) >= 0


@pytest.mark.parametrize("runs", [RUNS])
def test_results_are_rounded_to_even(runs: None) -> None:
    run = compile_product(TileProduct(20, 35, 32), 20, "bfloat16")
    if run.runnable:
        allow_tiles()
        rng = np.random.default_rng(0)
        a, b = (rng.integers(-9, 9, s).astype(F4) for s in ((20, 32), (32, 35)))
        out, intact = guarded((20, 35), "uint16")
        run(words(parts(a, False)[0]), misaligned(pack_tiles(b, 32, 2)), np.zeros(1, U2), out, 20)
        np.testing.assert_array_equal(out, (a @ b).astype(ml_dtypes.bfloat16).view(U2))
        assert intact()


CONVS = {
    "plain": (1, (5, 20), 16, 40, (3, 3), (1, 1), (1, 1)),
    "two_rows": (2, (5, 7), 32, 33, (3, 3), (1, 1), (1, 1)),
    "even_rows": (1, (4, 16), 8, 16, (2, 3), (1, 1), (1, 1)),
    "strided": (1, (3, 18), 16, 16, (1, 1), (2, 2), (1, 1)),
    "few_channels": (1, (9, 33), 4, 24, (7, 7), (2, 2), (1, 1)),
    "dilated": (1, (4, 17), 16, 16, (3, 3), (1, 1), (2, 2)),
    "line": (2, (37,), 12, 16, (5,), (1,), (1,)),
    "volume": (1, (3, 4, 5), 8, 16, (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    "one_pixel": (3, (1, 1), 16, 16, (3, 3), (1, 1), (1, 1)),
}


@pytest.mark.parametrize("runs", [RUNS])
@pytest.mark.parametrize("split", [False, True], ids=["bf16", "high"])
@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name: str, split: bool, runs: None) -> None:
    spec = TileConv(*CONVS[name], split)
    assert spec.fits
    sizes = [
        (o - 1) * s + (k - 1) * d + 1
        for o, s, k, d in zip(spec.output, spec.strides, spec.kernel, spec.dilation, strict=True)
    ]
    inputs = (spec.batch, *sizes, spec.channels)
    names = ["x", "x_low"][: spec.parts]
    pointers = dict.fromkeys((*names, "w"), "uint16") | {"y": "float32"}
    with kernel("conv", pointers, public=True) as k:
        y = k.view("y", (spec.batch, *spec.output, spec.features))
        x = [k.view(part, inputs) for part in names]
        emit_tile_conv(
            spec, x, k.view("w", (1,)), lambda index, value, lanes: y.store(value, index)
        )
    run = build(k, TARGET)
    if not run.runnable:
        return
    allow_tiles()
    rng = np.random.default_rng(1)
    image = rng.standard_normal(inputs).astype(F4)
    weight = rng.standard_normal((spec.features, spec.channels, *spec.kernel)).astype(F4)
    out, intact = guarded((spec.batch, *spec.output, spec.features))
    run(
        *(words(p) for p in parts(image, split)),
        misaligned(pack_tile_conv(weight, spec)),
        out,
    )
    want = np.zeros(out.shape)
    for tap in np.ndindex(*spec.kernel):
        window = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, spec.dilation, spec.output, spec.strides, strict=True)
        )
        seen = meaning(image, split)[(slice(None), *window)]
        want += seen @ meaning(weight, split)[(slice(None), slice(None), *tap)].T
    assert np.abs(out - want).max() <= (2e-5 if split else 2e-6) * np.abs(want).max()
    assert intact()


def test_steps_divide_k_and_are_never_padded() -> None:
    assert [chunk_depth(k) for k in (32, 768, 48, 28, 144, 21, 2 * 37)] == [
        32,
        32,
        24,
        28,
        24,
        0,
        2,
    ]
    assert TileProduct(8, 8, 2 * 37).fits is False
    assert TileProduct(8, 8, 2).fits is True


def test_packed_order() -> None:
    b = np.arange(4 * 40, dtype=F4).reshape(4, 40)
    packed = pack_tiles(b, 2, 2).view(ml_dtypes.bfloat16).astype(F4)
    assert packed.size == packed_words(4, 40)
    first = packed[:64].reshape(2, 16, 2)  # step 0: two tiles of one pair of depths
    np.testing.assert_array_equal(first[1, :, 1], b[1, 16:32])
    last = packed[-64:].reshape(2, 16, 2)  # the last block has one tile for each of two steps
    np.testing.assert_array_equal(last[1, :8, 0], b[2, 32:])
    assert not last[:, 8:].any()
    b = np.random.default_rng(0).standard_normal((4, 48)).astype(F4)
    high, low = (w.astype(np.float64) for w in np.split(_read(pack_tiles(b, 4, 3, split=True)), 2))
    pairs = np.stack([b[0::2], b[1::2]], -1).reshape(2, 3, 16, 2).transpose(1, 0, 2, 3)
    assert np.abs(high + low - pairs.ravel()).max() < 2e-5


def _read(packed: np.ndarray) -> np.ndarray:
    return packed.view(ml_dtypes.bfloat16)


def test_blocks_are_near_equal() -> None:
    blocks = Blocks(70, 32)
    assert (blocks.number, blocks.even, blocks.single) == (3, False, False)
    assert Blocks(64, 32).height == 32 and Blocks(1, 32).single
