"""Matrix products against NumPy: odd sizes, tails, symbolic extents, layouts, targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.lowering.cpu import vmath
from graphc.lowering.cpu.emit import Expr, View, kernel
from graphc.lowering.cpu.families.dense.matmul import (
    MatmulSpec,
    choose_matmul,
    emit_matmul,
    scratch_bytes,
)
from graphc.lowering.cpu.families.packing import pack_matmul
from graphc.lowering.cpu.features import CpuTarget
from tests.lowering.cpu.harness import TARGETS, Library, build, guarded, misaligned, target_id

V3, V4 = TARGETS[1], TARGETS[2]


def compile_packed(
    m: int | None, n: int, k: int, target: CpuTarget, dtype: str = "float32"
) -> tuple[Library, int]:
    """relu(A @ B + bias + residual), with M symbolic where `m` is None; and the packed width."""
    pointers = dict.fromkeys(("a", "b", "bias", "r", "c", "s"), dtype)
    with kernel("dense", pointers, dims=("m",), public=True) as kern:
        rows: Any = kern.dim("m") if m is None else m
        spec = MatmulSpec(rows, n, k, dtype=dtype)
        tile = choose_matmul(spec, target)
        panels = -(-n // tile.nr)
        bias, r, c = kern.view("bias", (n,)), kern.view("r", (rows, n)), kern.view("c", (rows, n))

        def finish(index: Any, value: Expr, lanes: int) -> None:
            value = value + bias.load(index[1:], lanes) + r.load(index, lanes)
            c.store(vmath.relu(value), index)

        a, b = kern.view("a", (rows, k)), kern.view("b", (panels, k, tile.nr))
        emit_matmul(spec, target, a, b, finish, scratch=kern.view("s", (1,)))
    return build(kern, target), tile.nr


def check_packed(run: Library, nr: int, m: int, n: int, k: int, dtype: str = "float32") -> None:
    rng = np.random.default_rng(m * 1000 + n)
    a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
    bias, r = rng.normal(size=n), rng.normal(size=(m, n))
    a, b, bias, r = (x.astype(dtype) for x in (a, b, bias, r))
    out, intact = guarded((m, n), dtype)
    sums, sums_intact = guarded((-(-n // nr) * nr * m,), dtype)
    run(
        misaligned(a), misaligned(pack_matmul(b, nr)), misaligned(bias), misaligned(r), out, sums, m
    )
    want = np.maximum(a.astype("f8") @ b.astype("f8") + bias + r, 0)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert np.abs(out - want).max(initial=0) <= tolerance * max(1.0, np.abs(want).max(initial=0))
    assert intact() and sums_intact()


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 10, 84), (1, 200, 37), (2, 64, 5), (5, 3, 7), (7, 100, 16), (13, 48, 33), (49, 65, 12)],
)
def test_packed(target: CpuTarget, m: int, n: int, k: int) -> None:
    run, nr = compile_packed(m, n, k, target)
    if run.runnable:
        check_packed(run, nr, m, n, k)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
@pytest.mark.parametrize(("n", "k"), [(10, 84), (72, 9)])
def test_packed_with_any_number_of_rows(target: CpuTarget, n: int, k: int) -> None:
    run, nr = compile_packed(None, n, k, target)
    if run.runnable:
        for m in (0, 1, 2, 5, 8, 15, 31, 101, 230):
            check_packed(run, nr, m, n, k)


def test_large_weights_are_shared_by_columns() -> None:
    assert not choose_matmul(MatmulSpec(128, 3072, 768), V3).rows_first
    assert choose_matmul(MatmulSpec(3136, 64, 256), V3).rows_first
    run, nr = compile_packed(40, 600, 600, V3)
    if run.runnable:
        check_packed(run, nr, 40, 600, 600)


def test_long_rows_are_followed_to_their_end() -> None:
    tile = choose_matmul(MatmulSpec(120, 1030, 64), V3)
    assert tile.rows_first and tile.row_tiles == 1
    assert choose_matmul(MatmulSpec(120, 900, 64), V3).row_tiles > 1
    run, nr = compile_packed(120, 1030, 64, V3)
    if run.runnable:
        check_packed(run, nr, 120, 1030, 64)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_deep_products_go_in_passes_that_leave_partial_sums(target: CpuTarget) -> None:
    spec = MatmulSpec(130, 70, 3072)
    tile = choose_matmul(spec, target)
    assert tile.passes(3072) == 4 and tile.coming and not tile.rows_first
    assert scratch_bytes(spec, target) == -(-70 // tile.nr) * 130 * tile.nr * 4
    run, nr = compile_packed(130, 70, 3072, target)
    if run.runnable:
        check_packed(run, nr, 130, 70, 3072)


@pytest.mark.parametrize("target", TARGETS[1:], ids=target_id)
def test_any_number_of_rows_in_passes(target: CpuTarget) -> None:
    n, k = 520, 1536
    assert choose_matmul(MatmulSpec(1 << 10, n, k), target).passes(k) == 2
    run, nr = compile_packed(None, n, k, target)
    if run.runnable:
        for m in (1, 3, 50, 129):
            check_packed(run, nr, m, n, k)


def test_many_rows_are_cut_into_chunks_that_stay_near() -> None:
    tile = choose_matmul(MatmulSpec(700, 400, 400), V4)
    assert tile.rows_first and tile.coming and 1 < tile.row_tiles < -(-700 // tile.mr)
    run, nr = compile_packed(700, 400, 400, V4)
    if run.runnable:
        check_packed(run, nr, 700, 400, 400)


def test_a_product_in_passes_needs_scratch() -> None:
    with (
        pytest.raises(ValueError, match="scratch"),
        kernel("bad", dict.fromkeys("abc", "float32"), public=True) as kern,
    ):
        a, b = kern.view("a", (130, 3072)), kern.view("b", (5, 3072, 16))
        emit_matmul(MatmulSpec(130, 80, 3072), V3, a, b, lambda *_: None)


def test_float64() -> None:
    run, nr = compile_packed(9, 21, 17, V3, "float64")
    if run.runnable:
        check_packed(run, nr, 9, 21, 17, "float64")


def test_small_products_stay_on_one_thread() -> None:
    assert not choose_matmul(MatmulSpec(1, 10, 84), V3).threads
    assert choose_matmul(MatmulSpec(1, 4096, 4096), V3).threads


def run_unpacked(
    layout: str, batch: tuple[int, ...], m: int, n: int, k: int, target: CpuTarget, symbolic: bool
) -> None:
    """C = scale * (A @ B) for an operand of the run, all extents symbolic or all static."""
    dims = ("m", "n", "k") if symbolic else ()
    pointers = dict.fromkeys(("a", "b", "c", "s"), "float32")
    with kernel("product", pointers, dims=dims, public=True) as kern:
        em, en, ek = (kern.dim(d) for d in dims) if symbolic else (m, n, k)
        spec = MatmulSpec(em, en, ek, batch, layout)
        shape = (ek, en) if layout == "rows" else (en, ek)
        a, b, c = (
            kern.view("a", (*batch, em, ek)),
            kern.view("b", (*batch, *shape)),
            kern.view("c", (*batch, em, en)),
        )
        scratch = kern.view("s", (1,))
        emit_matmul(spec, target, a, b, lambda i, v, _: c.store(v + v, i), scratch=scratch)
    run = build(kern, target)
    if not run.runnable:
        return
    sizes = [(m, n, k), (1, 1, 1), (3, 33, 2), (70, 31, 17)] if symbolic else [(m, n, k)]
    for m, n, k in sizes:
        spec = MatmulSpec(m, n, k, batch, layout)
        tile = choose_matmul(MatmulSpec(em, en, ek, batch, layout), target)
        # The symbolic kernel reserves all of its slots; a static one as many as it has tasks.
        room = 32 * (k + tile.mr) * tile.nr if symbolic else int(scratch_bytes(spec, target)) // 4
        rng = np.random.default_rng(m)
        a, b = rng.normal(size=(*batch, m, k)), rng.normal(size=(*batch, k, n))
        a, b = a.astype("f4"), b.astype("f4")
        given = b if layout == "rows" else np.swapaxes(b, -1, -2).copy()
        out, intact = guarded((*batch, m, n))
        memory, memory_intact = guarded((max(room, 1),))
        run(misaligned(a), misaligned(given), out, memory, *((m, n, k) if symbolic else ()))
        want = 2 * (a.astype("f8") @ b.astype("f8"))
        assert np.abs(out - want).max() <= 1e-5 * max(1.0, np.abs(want).max())
        assert intact() and memory_intact()


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
def test_operands_of_the_run(layout: str, symbolic: bool, target: CpuTarget) -> None:
    run_unpacked(layout, (2, 3), 20, 64, 24, target, symbolic)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_operands_of_the_run_with_odd_extents(layout: str) -> None:
    run_unpacked(layout, (), 7, 37, 19, V3, False)
    run_unpacked(layout, (40,), 3, 5, 6, V3, False)


def test_transposed_a_and_repeated_batch() -> None:
    with kernel("attend", dict.fromkeys("abc", "float32"), public=True) as kern:
        a = kern.view("a", (4, 6, 10), strides=(60, 1, 6))
        b = View(kern.view("b", (10, 20)).buffer, "float32", (0, 20, 1))
        c = kern.view("c", (4, 6, 20))
        spec = MatmulSpec(6, 20, 10, (4,), "rows")
        emit_matmul(spec, V3, a, b, lambda i, v, _: c.store(v, i))
    run = build(kern, V3)
    if not run.runnable:
        return
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 10, 6)).astype("f4"), rng.normal(size=(10, 20)).astype("f4")
    out, intact = guarded((4, 6, 20))
    run(misaligned(a), misaligned(b), out)
    assert np.allclose(out, np.swapaxes(a, 1, 2) @ b, atol=1e-5)
    assert intact()


def test_missing_scratch_and_bad_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="not 'packed', 'rows' or 'columns'"):
        MatmulSpec(1, 2, 3, b="diagonal")
    with (
        pytest.raises(ValueError, match="scratch"),
        kernel("bad", dict.fromkeys("abc", "float32"), public=True) as kern,
    ):
        a, b = kern.view("a", (2, 3)), kern.view("b", (4, 3))
        emit_matmul(MatmulSpec(2, 4, 3, (), "columns"), V3, a, b, lambda *_: None)
