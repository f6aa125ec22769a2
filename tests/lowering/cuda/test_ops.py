"""Every op on a GPU: its `compute`, compiled, is its `evaluate`; checks of indices."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Op
from graphc.ir.types import TensorType
from tests.lowering.cpu.bodies import body, close
from tests.lowering.cuda.bodies import Kernels
from tests.ops.samples import SAMPLES

SEEDS = 3
WITHOUT = {"arg_sort", "cond", "fusion", "scan"}  # no computation of single elements


def application(name: str, seed: int) -> tuple[Op, list[Array], Graph]:
    op, arrays = SAMPLES[name](np.random.default_rng(seed))
    types = [TensorType(DType.from_numpy(x.dtype), x.shape) for x in arrays]
    return op, arrays, body(lambda b, *xs: b.emit(op, *xs), *types)


NAMES = [n for n in sorted(SAMPLES) if n not in WITHOUT]
CASES = {
    f"{n}_{s}": application(n, 1000 * s + i) for i, n in enumerate(NAMES) for s in range(SEEDS)
}


@pytest.fixture(scope="module")
def compiled() -> Kernels:
    return Kernels({n: g for n, (_, _, g) in CASES.items()})


@pytest.mark.parametrize("name", NAMES)
def test_compiled_ops_are_what_they_evaluate_to(compiled: Kernels, name: str) -> None:
    for seed in range(SEEDS):
        op, arrays, _ = CASES[f"{name}_{seed}"]
        found = compiled(f"{name}_{seed}", *arrays, reverse=seed == 1)
        for actual, wanted in zip(found, op.evaluate(*arrays), strict=True):
            close(actual, wanted)
        assert not any(compiled.fault)
