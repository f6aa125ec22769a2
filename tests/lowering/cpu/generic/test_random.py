"""Random bits in kernels: dense and not, from the start of a block or inside of it, for every target."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.types import TensorType
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic import map as maps
from graphc.lowering.cpu.generic.schedule import schedule
from graphc.lowering.cpu.io import KernelIO
from graphc.ops import Add, BroadcastInDim, Fusion, RandomBits, Slice, Transpose, arith
from tests.lowering.cpu.bodies import NATIVE, Kernels, body, expected
from tests.lowering.cpu.harness import TARGETS, can_run, target_id

N = Dim.symbol("N")
KEY = np.array([-(2**40) - 12345, 2**35 + 6], np.int64)


def emit(graph: Graph, target: CpuTarget, io: KernelIO) -> None:
    maps.emit(Fusion("map", graph), target, io)


def bits(b: GraphBuilder, key: Value, *shape: DimLike) -> Value:
    return b(RandomBits(2**31 + 5, shape), key)


def with_bias(b: GraphBuilder, key: Value, bias: Value, shape: tuple[DimLike, ...]) -> Value:
    """Rows stay loops of their own, and start anywhere in a block."""
    return b(Add(), bits(b, key, *shape), b(BroadcastInDim(shape, (1,)), bias))


K = TensorType(DType.I64, (2,))
WORDS = {
    "dense": body(lambda b, k: bits(b, k, 5, 100), K),
    "few": body(lambda b, k: bits(b, k, 3), K),
    "scalar": body(lambda b, k: bits(b, k), K),
    "rows": body(lambda b, k, x: with_bias(b, k, x, (7, 27)), K, TensorType(DType.I32, (27,))),
    "turned": body(lambda b, k: b(Transpose((1, 0)), bits(b, k, 37, 18)), K),
    "channels": body(lambda b, k: b(Transpose((0, 2, 3, 1)), bits(b, k, 2, 3, 5, 8)), K),
    "part": body(lambda b, k: b(Slice((3,), (90,), (1,)), bits(b, k, 100)), K),
    "steps": body(lambda b, k: b(Slice((1,), (100,), (2,)), bits(b, k, 100)), K),
    "mask": body(lambda b, k: arith.compare(b, "lt", bits(b, k, 301), 12345), K),
    "named": body(
        lambda b, k, x: with_bias(b, k, x, (N, 27)),
        K,
        TensorType(DType.I32, (27,)),
        dims={"N": Bounds()},
    ),
    "named_rows": body(
        lambda b, k, x: with_bias(b, k, x, (4, N)),
        K,
        TensorType(DType.I32, (N,)),
        dims={"N": Bounds()},
    ),
    "long": body(lambda b, k: bits(b, k, 100_003), K),
}


@pytest.fixture(scope="module", params=TARGETS, ids=target_id)
def kernels(request: pytest.FixtureRequest) -> Kernels | None:
    compiled = Kernels(WORDS, emit, request.param)
    return compiled if can_run(request.param) else None


@pytest.mark.parametrize("name", WORDS)
def test_bits_are_the_interpreters(kernels: Kernels | None, name: str) -> None:
    if kernels is None:
        return
    graph = kernels.bodies[name]
    for size in (1, 2, 5, 63, 200) if graph.dims else (1,):
        dims = dict.fromkeys(graph.dims, size)
        arrays = [KEY] + [
            np.arange(t.concrete(dims)[0], dtype=np.int32)
            for t in (n.types[0] for n in graph.inputs[1:])
        ]
        (wanted,) = expected(graph, arrays, **dims)
        for threads in (1, 3):
            (found,) = kernels(name, *arrays, threads=threads, **dims)
            np.testing.assert_array_equal(found, wanted)


def test_a_dense_tensor_is_one_loop_of_wide_vectors() -> None:
    graph = WORDS["dense"]
    plan = schedule(graph, [graph.outputs[0][1]], NATIVE)
    assert plan.axes.groups == ((0, 1),)
    assert plan.widths[0] == 4 * plan.lanes
