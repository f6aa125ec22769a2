"""The emission helpers, compiled and run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphc.lowering.cpu import emit
from graphc.lowering.cpu.emit import const, kernel

from .harness import TARGETS, Library, build, guarded, misaligned, target_id


def test_near_equal_tiles_cover_everything_once() -> None:
    for extent, size in itertools.product(range(0, 40), range(1, 9)):
        covered = []
        runs = emit.near_equal_tiles(extent, size)
        for start, count, tile in runs:
            covered += range(start, start + count * tile)
        assert covered == list(range(extent))
        widths = [tile for _, _, tile in runs]
        assert not widths or (max(widths) <= size and max(widths) - min(widths) <= 1)


def test_vector_pieces_are_powers_of_two() -> None:
    assert emit.vector_pieces(23, 16) == [(0, 16), (16, 4), (20, 2), (22, 1)]
    assert emit.vector_pieces(0, 8) == []
    assert emit.power_of_two_ladder(6) == [4, 2, 1]
    assert emit.power_of_two_ladder(8) == [4, 2, 1]
    assert emit.power_of_two_ladder(1) == []


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_symbolic_axis_touches_every_element_once(target: object) -> None:
    with kernel("scale", {"x": "float32", "y": "float32"}, dims=("n",), public=True) as k:
        n = k.dim("n")
        x, y = k.view("x", (3, n)), k.view("y", (3, n))
        with emit.loop(3, parallel=True) as i:
            emit.along(
                n, 16, lambda j, v: y.store(x.load((i, j), v) * const(2.0, "float32", v), (i, j))
            )
    run = build(k, target)
    if not run.runnable:
        return
    for n in (0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 100):
        source = misaligned(np.arange(3 * n, dtype="float32").reshape(3, n))
        out, intact = guarded((3, n))
        run(source, out, n)
        assert np.array_equal(out, 2 * source)
        assert intact()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 8, 14])
def test_symbolic_tiles_cover_everything_once(size: int) -> None:
    with kernel("tiles", {"y": "int32"}, dims=("n",), public=True) as k:
        n = k.dim("n")
        y = k.view("y", (n,))

        def body(start: object, count: int) -> None:
            for i in range(count):
                y.store(y.load((start + i,)) + const(count, "int32"), (start + i,))

        emit.tiles(n, size, body)
    run = build(k, TARGETS[0])
    for n in range(0, 3 * size + 2):
        out, intact = guarded((n,), "int32")
        out[...] = 0
        run(out, n)
        expected = [size] * (n // size * size)
        for step in emit.power_of_two_ladder(size):
            expected += [step] * (step if (n % size) & step else 0)
        assert out.tolist() == expected
        assert intact()


def test_fused_loop_runs_over_the_product() -> None:
    with kernel("fused", {"y": "int64"}, dims=("a", "b"), public=True) as k:
        a, b = k.dim("a"), k.dim("b")
        y = k.view("y", (a, 1, b, 3))
        with emit.fused_loop((a, 1, b, 3), parallel=True) as (i, one, j, c):
            y.store(emit.i64(i * 100 + j * 10 + c), (i, one, j, c))
    run = build(k, TARGETS[0])
    out, intact = guarded((4, 1, 5, 3), "int64")
    run(out, 4, 5)
    i, j, c = np.meshgrid(range(4), range(5), range(3), indexing="ij")
    assert np.array_equal(out[:, 0], i * 100 + j * 10 + c)
    assert intact()


@pytest.mark.parametrize("lanes", [1, 2, 4, 16])
def test_views_gather_repeat_and_hold_booleans(lanes: int) -> None:
    with kernel("views", {"x": "float32", "m": "bool", "y": "float32"}, public=True) as k:
        columns = k.view("x", (4, 16), strides=(1, 4))
        repeated = k.view("x", (16,), strides=(0,), offset=5)
        mask = k.view("m", (4, 16))
        y = k.view("y", (4, 16))
        with emit.loop(4) as i, emit.loop(16 // lanes) as j:
            v = emit.bind(columns.load((i, j * lanes), lanes))
            mask.store(v > const(8.0, "float32", lanes), (i, j * lanes))
            r = emit.bind(repeated.load((j * lanes,), lanes))
            y.store(emit.select(mask.load((i, j * lanes), lanes), v, r), (i, j * lanes))
    run = build(k, TARGETS[1])
    if not run.runnable:
        return
    x = misaligned(np.arange(64, dtype="float32"))
    m, m_intact = guarded((4, 16), "bool")
    y, y_intact = guarded((4, 16))
    run(x, m, y)
    v = x.reshape(16, 4).T
    assert np.array_equal(m, v > 8)
    assert np.array_equal(y, np.where(v > 8, v, 5))
    assert m_intact() and y_intact()


@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
def test_fold_lanes_and_registers(lanes: int) -> None:
    with kernel("fold", {"x": "float32", "y": "float32"}, public=True) as k:
        x, y = k.view("x", (5, lanes)), k.view("y", (1,))
        acc = emit.Registers(1, lanes, "float32")
        acc.set(const(0.0, "float32", lanes), 0)
        with emit.loop(5) as i:
            acc.set(acc.get(0, 0, lanes) + x.load((i, 0), lanes), 0)
        y.store(emit.fold_lanes(acc.get(0, 0, lanes), lambda a, b: a + b), (0,))
    run = build(k, TARGETS[1])
    if not run.runnable:
        return
    x = misaligned(np.arange(5 * lanes, dtype="float32"))
    y, intact = guarded((1,))
    run(x, y)
    assert y[0] == x.sum()
    assert intact()


def test_one_kernel_calls_another() -> None:
    with kernel("inner", {"x": "float32", "y": "float32"}, dims=("n",)) as inner:
        x, y = inner.view("x", (inner.dim("n"),)), inner.view("y", (inner.dim("n"),))
        with emit.loop(inner.dim("n"), parallel=True) as i:
            y.store(x.load((i,)) + const(1.0, "float32"), (i,))
    symbol = emit.symbol("inner")
    with kernel("outer", {"x": "float32", "y": "float32"}, dims=("n",), public=True) as outer:
        n = outer.dim("n")
        x, y = outer.view("x", (2, n)), outer.view("y", (2, n))
        for row in range(2):
            emit.call(symbol, x.address((row, 0)), y.address((row, 0)), n)
    functions = {symbol: inner.function, "outer": outer.function}
    run = Library(functions, "outer", TARGETS[0])
    x = misaligned(np.arange(10, dtype="float32"))
    y, intact = guarded((10,))
    run(x, y, 5)
    assert np.array_equal(y, x + 1)
    assert intact()
    assert run.object == Library(functions, "outer", TARGETS[0]).object


def test_registers_refuse_what_would_go_to_the_heap() -> None:
    with pytest.raises(ValueError, match="too large for registers"):
        emit.Registers(1, 256, "float32")


def test_worth_threads() -> None:
    assert not emit.worth_threads(2 * 128 * 10)
    assert emit.worth_threads(10**8)
    assert emit.worth_threads(0, 10**7)
    # LeNet's first layer: the convolution alone is too small to share, with a function of its results it is not
    flops, results = 2 * 25 * 28 * 28 * 6, (1, 28, 28, 6)
    assert not emit.worth_threads(emit.work_of(flops, 0, results))
    assert emit.worth_threads(emit.work_of(flops, 1, results))


@pytest.mark.parametrize("extent", [1, 2, 7, 16])
def test_a_swinging_loop_visits_everything_and_names_what_follows(extent: int) -> None:
    """Forwards and backwards, each task its own part; what follows the last index is where the next walk begins."""
    with kernel("swing", {"y": "int64"}, dims=("turn",), public=True) as k:
        y = k.view("y", (2, extent))
        with emit.swinging_loop(extent, k.dim("turn")) as (index, following):
            y.store(y.load((0, index)) + emit.i64(1), (0, index))
            y.store(following, (1, index))
    run = build(k, TARGETS[0])
    for threads in (1, 2, 3, 16):
        parts = [range(t * extent // threads, (t + 1) * extent // threads) for t in range(threads)]
        for turn in (0, 1):
            out = np.zeros((2, extent), np.int64)
            run(out, turn, threads=threads)
            assert (out[0] == 1).all()
            for part in parts:
                walk = list(reversed(part)) if turn else list(part)
                assert [int(out[1, i]) for i in walk] == [*walk[1:], *walk[-1:]]
