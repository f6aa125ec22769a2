"""The emitter: every op's `compute`, compiled, is its `evaluate`; checks, gathers, branches."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Op
from graphc.ir.types import TensorType
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic import reduce
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.generic.trace import checked_nodes
from graphc.ops import DynamicSlice, Fusion, IndexAdd, Take, TakeAlongAxis
from tests.lowering.cpu.bodies import NATIVE, Kernels, body, check, close
from tests.lowering.cpu.harness import TARGETS, can_run, target_id
from tests.ops.samples import SAMPLES

SEEDS = 3
WITHOUT = {"arg_sort", "fusion", "scan", "cond"}  # no computation of single elements


def emit(graph: Graph, target: CpuTarget, io: KernelIO) -> None:
    reduce.emit(Fusion("test", graph), target, io)


def application(name: str, seed: int) -> tuple[Op, list[Array], Graph]:
    op, arrays = SAMPLES[name](np.random.default_rng(seed))
    types = [TensorType(DType.from_numpy(x.dtype), x.shape) for x in arrays]
    return op, arrays, body(lambda b, *xs: b.emit(op, *xs), *types)


NAMES = [n for n in sorted(SAMPLES) if n not in WITHOUT]
CASES = {
    f"{n}_{s}": application(n, 1000 * s + i) for i, n in enumerate(NAMES) for s in range(SEEDS)
}


def test_every_op_but_these_can_be_computed() -> None:
    for name in SAMPLES:
        graph = application(name, 1)[2]
        assert reduce.accepts(Fusion("test", graph), NATIVE) is (name not in WITHOUT)


@pytest.fixture(scope="module", params=TARGETS[1:], ids=target_id)
def compiled(request: pytest.FixtureRequest) -> Kernels | None:
    kernels = Kernels({n: g for n, (_, _, g) in CASES.items()}, emit, request.param)
    return kernels if can_run(request.param) else None


@pytest.mark.parametrize("name", NAMES)
def test_compiled_ops_are_what_they_evaluate_to(compiled: Kernels | None, name: str) -> None:
    if compiled is None:
        return
    for seed in range(SEEDS):
        op, arrays, _ = CASES[f"{name}_{seed}"]
        for actual, wanted in zip(
            compiled(f"{name}_{seed}", *arrays), op.evaluate(*arrays), strict=True
        ):
            close(actual, wanted)
        assert not compiled.fault.any()


N = Dim.symbol("N")
INDICES = TensorType(DType.I32, (3, 20))


@pytest.fixture(scope="module")
def checking() -> Kernels:
    i64 = DType.I64
    bodies = {
        "rows": body(lambda b, x, i: b(Take(0), x, i), (5, 40), TensorType(i64, (4,))),
        "along": body(lambda b, x, i: b(TakeAlongAxis(1), x, i), (3, 7), INDICES),
        "named": body(
            lambda b, x, i: b(Take(0), x, i),
            (N, 40),
            TensorType(i64, (4,)),
            dims={"N": Bounds()},
        ),
        "box": body(
            lambda b, x, i: b(DynamicSlice((2, 16)), x, i, i), (5, 40), TensorType(i64, ())
        ),
        "add": body(
            lambda b, x, i, u: b(IndexAdd(0), x, i, u), (5, 19), TensorType(i64, (3,)), (3, 19)
        ),
    }
    return Kernels(bodies, emit)


def test_the_checked_nodes_are_known_beforehand(checking: Kernels) -> None:
    for name, graph in checking.bodies.items():
        count = 2 if name == "box" else 1
        nodes = checked_nodes(graph)
        assert len({n.id for n in nodes}) == len(nodes) <= count


def test_valid_indices_are_no_fault(checking: Kernels) -> None:
    x = np.arange(200, dtype=np.float32).reshape(5, 40)
    (rows,) = checking("rows", x, np.array([4, 0, 2, 2]))
    assert np.array_equal(rows, x[[4, 0, 2, 2]])
    (rows,) = checking("named", x, np.array([4, 0, 2, 2]), N=5)
    assert np.array_equal(rows, x[[4, 0, 2, 2]])
    indices = np.arange(60, dtype=np.int32).reshape(3, 20) % 7
    (picked,) = checking("along", x[:3, :7], indices)
    assert np.array_equal(picked, np.take_along_axis(x[:3, :7], indices.astype(np.int64), 1))
    assert not checking.fault.any()


def test_the_first_fault_is_recorded_and_the_index_clamped(checking: Kernels) -> None:
    x = np.arange(200, dtype=np.float32).reshape(5, 40)
    (rows,) = checking("rows", x, np.array([1, 5, 2, -3]), threads=1)
    assert checking.fault.tolist() == [1, 5, 40, 5]
    assert np.array_equal(rows, x[[1, 4, 2, 0]])
    (rows,) = checking("named", x[:2], np.array([1, 0, -1, 1]), threads=1, N=2)
    assert checking.fault.tolist() == [1, -1, 80, 2]


def test_a_fault_in_one_lane_of_a_vector_is_found(checking: Kernels) -> None:
    x = np.arange(21, dtype=np.float32).reshape(3, 7)
    indices = np.zeros((3, 20), np.int32)
    indices[1, 13] = 7
    (picked,) = checking("along", x, indices, threads=1)
    assert checking.fault.tolist() == [1, 7, 33, 7]
    indices[1, 13] = 6
    assert np.array_equal(picked, np.take_along_axis(x, indices.astype(np.int64), 1))


def test_box_starts_are_checked_for_each_dimension(checking: Kernels) -> None:
    x = np.arange(200, dtype=np.float32).reshape(5, 40)
    (box,) = checking("box", x, np.array(3))
    assert np.array_equal(box, x[3:5, 3:19])
    checking("box", x, np.array(4), threads=1)
    assert checking.fault[:2].tolist() == [1, 4]


def test_updates_add_up(checking: Kernels) -> None:
    check(checking, "add")
