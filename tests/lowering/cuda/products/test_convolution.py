"""Convolutions by tiles against the interpreter: strides, padding, dilation, channels, what follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ops import Convert, ConvGeneral, Input, Parameter, Relu
from graphc.ops import functional as f
from tests.lowering.cuda.emulated import check

N = Dim.symbol("N")


@dataclass(frozen=True)
class Case:
    """x: N *S C; the filter has `features` and `kernel`."""

    x: tuple[DimLike, ...]
    features: int
    kernel: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    twice: bool = False
    spread: int = 1


CASES = {
    "three_by_three": Case((2, 9, 11, 16), 24, (3, 3), padding=1),
    "picture": Case((1, 13, 13, 3), 16, (7, 7), stride=2, padding=3),
    "pointwise": Case((2, 5, 7, 32), 40, (1, 1)),
    "pointwise_stride": Case((2, 6, 7, 16), 40, (1, 1), stride=2),
    "dilated": Case((1, 10, 10, 8), 8, (3, 2), dilation=2),
    "odd_channels": Case((1, 6, 6, 5), 9, (3, 3), padding=1),
    "signal": Case((3, 20, 16), 8, (5,), stride=2, padding=2),
    "open": Case((N, 8, 8, 16), 16, (3, 3), padding=1),
    "spread": Case((2, 4, 5, 16), 16, (3, 3), padding=1, spread=2),
    "spread_pointwise": Case((2, 4, 5, 16), 8, (1, 1), spread=2),  # most pixels meet no tap
    "spread_dilated": Case((N, 5, 4, 8), 16, (3, 2), padding=1, dilation=3, spread=2),
    "spread_signal": Case(
        (2, 5, 1200), 8, (4,), padding=2, spread=3
    ),  # K shared among blocks in f32
    "chain": Case((1, 8, 8, 16), 16, (3, 3), padding=1, twice=True),
}


def graph_of(dtype: DType) -> tuple[Graph, dict[str, np.ndarray]]:
    """All cases in one program."""
    b = GraphBuilder("convolutions", {"N": Bounds(1)})
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    outputs = []
    for name, case in CASES.items():
        arrays[name] = rng.normal(size=[3 if isinstance(d, Dim) else d for d in case.x])
        arrays[name] = arrays[name].astype(dtype.numpy)
        outputs.append((f"{name}_y", _convolved(b, name, dtype)))
    return b.build(outputs), arrays


def _convolved(b: GraphBuilder, name: str, dtype: DType) -> Value:
    case = CASES[name]
    x, rank = b(Input(name, dtype, case.x)), len(case.kernel)
    for i in range(2 if case.twice else 1):
        channels = b.type_of(x).shape[-1]
        assert isinstance(channels, int)
        w = b(Parameter(f"{name}_w{i}", dtype, (case.features, channels, *case.kernel), "zeros()"))
        op = ConvGeneral(
            (case.stride,) * rank,
            ((case.padding, case.padding),) * rank,
            (case.spread,) * rank,
            (case.dilation,) * rank,
            1,
            True,
        )
        x = b(op, x, w)
        if dtype is DType.F32:
            bias = b(Parameter(f"{name}_b{i}", DType.F32, (case.features,), "zeros()"))
            x = b(Relu(), f.add(b, x, bias))
    return b(Convert(DType.F32), x) if dtype is not DType.F32 else x


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16], ids=str)
def test_convolutions_are_what_the_interpreter_computes(dtype: DType) -> None:
    graph, arrays = graph_of(dtype)
    for reverse in (False, True):
        _, program = check(
            graph, arrays, tolerance=3e-6 if dtype is DType.F32 else 2e-2, reverse=reverse
        )
    kernels = program.source.split('extern "C" __global__')[1:]
    assert sum("graphc_multiply<" in k for k in kernels) == len(CASES) + 1  # "chain" has two
    phases = [k for k in kernels if "graphc_phase_windows<" in k]
    assert len(phases) == sum(case.spread > 1 for case in CASES.values())
    assert dtype is not DType.F32 or any("graphc_from(" in k for k in phases)
