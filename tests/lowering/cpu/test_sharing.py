"""Loops that choose their threads while running."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.lowering.cpu import emit
from graphc.lowering.cpu.emit import Extent, kernel
from graphc.lowering.cpu.sharing import least_value, shared_loop

from .harness import TARGETS, build, guarded


def test_least_value_sets_every_dim_to_one() -> None:
    with kernel("dims", {"x": "float32"}, dims=("n", "t"), public=True) as k:
        n, t = k.dim("n"), k.dim("t")
        assert least_value(emit.product((n, 3, t, 5))) == 15
        assert least_value(emit.ceil_div(n * 55, 2) + emit.maximum_extent(t, 7)) == 35
        assert least_value(12) == 12


@pytest.mark.parametrize("work", [1, 1000, 10**9])
def test_small_work_runs_on_one_thread(work: int) -> None:
    with kernel("touch", {"y": "int64"}, dims=("n",), public=True) as k:
        n = k.dim("n")
        y = k.view("y", (n, 4))

        def body(indices: tuple[Extent, ...]) -> None:
            i, j = indices
            y.store(emit.i64(i) * 4 + j, (i, j))

        shared_loop((n, 4), body, threads=True, flops=emit.product((n, 4, work)))
    run = build(k, TARGETS[0])
    for n in (1, 3, 400):
        out, intact = guarded((n, 4), "int64")
        run(out, n)
        assert np.array_equal(out.ravel(), np.arange(4 * n))
        assert intact()
    # Only work that is small for small dims is emitted twice.
    assert str(k.function).count("T.parallel") == 1
    assert ("else" in str(k.function)) == (work < 10**9)
