"""Products by tiles against the interpreter: types, layouts, ragged ends, batches, epilogues."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ops import Convert, DotGeneral, Input, Parameter, Relu
from graphc.ops import functional as f
from tests.lowering.cuda.emulated import check

M = Dim.symbol("M")


@dataclass(frozen=True)
class Case:
    """`lhs` and `rhs` are shapes; `contract` their contracted dims; leading `batch` dims are shared."""

    lhs: tuple[DimLike, ...]
    rhs: tuple[DimLike, ...]
    contract: tuple[int, int]
    batch: int = 0
    weight: bool = False


CASES = {
    "rows": Case((70, 48), (72, 48), (1, 1), weight=True),
    "columns": Case((70, 48), (48, 72), (1, 0)),
    "packed": Case((70, 50), (50, 72), (1, 0), weight=True),
    "ragged": Case((65, 33), (17, 33), (1, 1)),
    "turned": Case((40, 70), (40, 24), (0, 0)),
    "batched": Case((3, 20, 40), (3, 40, 16), (2, 1), batch=1),
    "merged": Case((2, 9, 64), (64, 8, 5), (2, 0), weight=True),
    "open": Case((M, 64), (128, 64), (1, 1), weight=True),
}


def graph_of(dtype: DType) -> tuple[Graph, dict[str, np.ndarray]]:
    """All cases in one program."""
    b = GraphBuilder("products", {"M": Bounds(1)})
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    outputs = [(name, _product(b, name, dtype, rng, arrays)) for name in CASES]
    return b.build(outputs), arrays


def _product(
    b: GraphBuilder,
    name: str,
    dtype: DType,
    rng: np.random.Generator,
    arrays: dict[str, np.ndarray],
) -> Value:
    case, values = CASES[name], []
    for label, shape in ((f"{name}_x", case.lhs), (f"{name}_y", case.rhs)):
        if label.endswith("y") and case.weight:
            sizes = tuple(d for d in shape if isinstance(d, int))
            values.append(b(Parameter(f"{name}_w", dtype, sizes, "zeros()")))
            continue
        values.append(b(Input(label, dtype, shape)))
        arrays[label] = rng.normal(size=[37 if isinstance(d, Dim) else d for d in shape]).astype(
            dtype.numpy
        )
    shared = tuple(range(case.batch))
    a, c = case.contract
    y = b(DotGeneral(shared, shared, (a,), (c,)), *values)
    if name in ("rows", "open", "ragged"):
        wide = b(Convert(DType.F32), y) if dtype is not DType.F32 else y
        bias = b(Input(f"{name}_bias", DType.F32, b.type_of(y).shape[-1:]))
        arrays[f"{name}_bias"] = rng.normal(size=b.type_of(y).shape[-1]).astype(np.float32)
        y = b(Relu(), f.add(b, wide, bias))
    return y


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16, DType.F16], ids=str)
def test_products_are_what_the_interpreter_computes(dtype: DType) -> None:
    graph, arrays = graph_of(dtype)
    tolerance = {DType.F32: 3e-6, DType.BF16: 8e-3, DType.F16: 1e-3}[dtype]
    for reverse in (False, True):
        spec, program = check(graph, arrays, tolerance=tolerance, reverse=reverse)
    assert len(spec.kernels) == len(CASES)
    kernels = program.source.split('extern "C" __global__')[1:]
    assert all("graphc_multiply<" in k for k in kernels)
