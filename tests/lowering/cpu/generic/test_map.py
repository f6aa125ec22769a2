"""Maps: movements, broadcasts, tails, named dims, transpositions, random bodies."""

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
from graphc.ops import (
    Add,
    BroadcastInDim,
    Compare,
    Concatenate,
    Exp,
    Fusion,
    Gelu,
    Input,
    Iota,
    Maximum,
    Multiply,
    Pad,
    ReduceSum,
    Relu,
    Reshape,
    Reverse,
    Select,
    Slice,
    Subtract,
    Take,
    Transpose,
)
from tests.lowering.cpu.bodies import (
    NATIVE,
    Kernels,
    body,
    check,
    close,
    expected,
    kernels_by_target,
    operands,
)

N, T = Dim.symbol("N"), Dim.symbol("T")
DIMS = {"N": Bounds(), "T": Bounds()}


def emit(graph: Graph, target: CpuTarget, io: KernelIO) -> None:
    fusion = Fusion("map", graph)
    assert maps.accepts(fusion, target)
    maps.emit(fusion, target, io)


def transposed(permutation: tuple[int, ...], *shape: DimLike, dtype: DType = DType.F32) -> Graph:
    dims = DIMS if any(isinstance(d, Dim) for d in shape) else None
    return body(lambda b, x: b(Transpose(permutation), x), TensorType(dtype, shape), dims=dims)


def biased(b: GraphBuilder, x: Value, y: Value) -> Value:
    return b(Relu(), b(Add(), x, b(BroadcastInDim(b.type_of(x).shape, (1,)), y)))


MOVES = {
    "add": body(lambda b, x, y: b(Add(), x, y), (3, 5, 7), (3, 5, 7)),
    "bias": body(biased, (4, 33), (33,)),
    "bias_columns": body(
        lambda b, x, y: b(Add(), x, b(BroadcastInDim((4, 33), (0,)), y)), (4, 33), (4,)
    ),
    "scalar": body(lambda b, x: b(Gelu(), x), ()),
    "long": body(lambda b, x: b(Relu(), x), (20_003,)),
    "two": body(lambda b, x, y: (b(Add(), x, y), b(Maximum(), x, y)), (3, 41), (3, 41)),
    "shapes": body(lambda b, x: (b(Relu(), x), b(Transpose((1, 0)), x)), (5, 19)),
    "pad": body(lambda b, x: b(Pad((0, 1, 2, 0), (0, 1, 1, 0), (0,) * 4, 0.5), x), (2, 5, 6, 19)),
    "pad_row": body(lambda b, x: b(Pad((0, 1), (0, 2), (0, 0), 0.5), x), (3, 37)),
    "pad_crop": body(lambda b, x: b(Pad((-1, 3), (2, -4), (0, 0), 7.0), x), (6, 37)),
    "pad_between": body(lambda b, x: b(Pad((1, 1), (0, 2), (1, 2)), x), (4, 9)),
    "cat_inner": body(lambda b, x, y: b(Concatenate(2), x, y), (3, 7, 5), (3, 7, 40)),
    "cat_middle": body(
        lambda b, x, y, z: b(Concatenate(1), x, y, z), (3, 7, 5), (3, 1, 5), (3, 20, 5)
    ),
    "slice": body(lambda b, x: b(Slice((0, 1, 0), (2, 5, 20), (1, 2, 3)), x), (2, 6, 20)),
    "reverse": body(lambda b, x: b(Reverse((1,)), x), (5, 40)),
    "iota": body(lambda b: b(Iota(DType.I32, (3, 37), 1))),
    "mask": body(
        lambda b, x: b(
            Select(),
            b(
                Compare("ge"),
                b(Iota(DType.I64, (19, 19), 0)),
                b(Iota(DType.I64, (19, 19), 1)),
            ),
            x,
            b(Exp(), x),
        ),
        (19, 19),
    ),
    "heads": body(
        lambda b, x: b(Transpose((0, 2, 1, 3)), b(Reshape((2, 9, 4, 16)), x)), (2, 9, 64)
    ),
    "rows": body(lambda b, x, i: b(Take(0), x, i), (5, 40), TensorType(DType.I64, (3, 2))),
    "columns": body(lambda b, x, i: b(Take(1), x, i), (5, 40), TensorType(DType.I64, (19,))),
    "nothing": body(lambda b, x: b(Relu(), x), (3, 0, 5)),
    "half": body(lambda b, x: b(Gelu(), x), TensorType(DType.F16, (3, 37))),
    "brain": body(lambda b, x: b(Gelu(), x), TensorType(DType.BF16, (3, 37))),
    "bytes": body(
        lambda b, x, y: b(Subtract(), x, y),
        TensorType(DType.U8, (3, 100)),
        TensorType(DType.U8, (3, 100)),
    ),
    "turn": transposed((1, 0), 33, 50),
    "turn_3": transposed((2, 1, 0), 5, 6, 7),
    "image_rgb": transposed((0, 2, 3, 1), 2, 3, 5, 37),
    "image_grey": transposed((0, 2, 3, 1), 2, 1, 5, 37),
    "image_64": transposed((0, 2, 3, 1), 2, 64, 5, 7),
    "image_back": transposed((0, 3, 1, 2), 2, 5, 7, 64),
    "keys": transposed((0, 2, 3, 1), 2, 9, 4, 16),
    "turn_bool": transposed((1, 0), 33, 50, dtype=DType.BOOL),
    "turn_half": transposed((1, 0), 33, 50, dtype=DType.F16),
    "turn_brain": transposed((1, 0), 33, 50, dtype=DType.BF16),
    "turn_i64": transposed((1, 0), 33, 50, dtype=DType.I64),
    "turn_add": body(lambda b, x, y: b(Add(), b(Transpose((1, 0)), x), y), (33, 50), (50, 33)),
    "image_padded": body(
        lambda b, x: b(Pad((0, 1, 3, 0), (0, 2, 3, 0), (0,) * 4), b(Transpose((0, 2, 3, 1)), x)),
        (2, 3, 5, 37),
    ),
}
NAMED = {
    "bias": body(
        lambda b, x, y: b(Gelu(), b(Add(), x, b(BroadcastInDim((N, T), (1,)), y))),
        (N, T),
        (T,),
        dims=DIMS,
    ),
    "pad": body(lambda b, x: b(Pad((0, 1), (1, 2), (0, 0), 0.5), x), (N, T), dims=DIMS),
    "cat": body(lambda b, x, y: b(Concatenate(1), x, y), (N, T), (N, 3), dims=DIMS),
    "cat_rows": body(lambda b, x, y: b(Concatenate(0), x, y), (N, 7), (3, 7), dims={"N": Bounds()}),
    "turn": transposed((1, 0), N, T),
    "image": transposed((0, 2, 3, 1), N, 3, T, T),
    "flat": body(lambda b, x: b(Relu(), b(Reshape((N, 4 * T)), x)), (N, T, 4), dims=DIMS),
}


@pytest.fixture(scope="module")
def moves() -> Kernels:
    return Kernels(MOVES, emit)


@pytest.mark.parametrize("name", MOVES)
def test_maps(moves: Kernels, name: str) -> None:
    check(moves, name)


named = kernels_by_target(NAMED, emit)


@pytest.mark.parametrize("name", NAMED)
def test_named_dims_take_any_value(named: Kernels | None, name: str) -> None:
    if named is None:
        return
    shared = (4, 101) if name == "image" else (40, 301)  # enough for threads
    for n, t in ((1, 1), (2, 3), (1, 16), (3, 17), (5, 100), (2, 33), shared):
        check(named, name, N=n, T=t)


def test_nan_goes_through_relu_and_maximum(moves: Kernels) -> None:
    x = np.full((4, 33), np.nan, np.float32)
    assert np.isnan(moves("bias", x, np.zeros(33, np.float32))[0]).all()
    x, y = np.full((3, 41), np.nan, np.float32), np.ones((3, 41), np.float32)
    assert np.isnan(moves("two", x, y)[1]).all()
    assert np.isnan(moves("two", y, x)[1]).all()


@pytest.mark.usefixtures("all_processors")
def test_results_do_not_depend_on_the_number_of_threads(moves: Kernels) -> None:
    for name in ("long", "image_64"):
        x = operands(MOVES[name])
        one = moves(name, *x, threads=1)[0]
        assert one.tobytes() == moves(name, *x, threads=3)[0].tobytes()


def test_loops_are_chosen_by_memory() -> None:
    def plan(name: str) -> tuple[tuple[int, ...], ...]:
        graph = MOVES[name]
        return schedule(graph, [graph.outputs[0][1]], NATIVE).axes.groups

    assert plan("add") == ((0, 1, 2),)
    assert plan("bias") == ((0,), (1,))
    assert plan("image_64") == ((0,), (1, 2), (3,))
    assert plan("cat_middle") == ((0,), (1,), (2,))
    turned = schedule(MOVES["image_64"], [MOVES["image_64"].outputs[0][1]], NATIVE)
    assert (turned.vector, turned.turned) == (2, 1)


def test_a_reduction_is_no_map() -> None:
    graph = body(lambda b, x: b(ReduceSum((0,)), x), (3, 4))
    assert not maps.accepts(Fusion("map", graph), NATIVE)


def random_body(seed: int) -> Graph:
    """A chain of movements and arithmetic that mixes two inputs, at random."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("body")
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 5, 16, 19], 3))
    values = [b(Input(f"x{i}", DType.F32, shape)) for i in range(2)]
    at = values[0]
    for _ in range(6):
        at_shape = b.type_of(at).shape
        rank = len(at_shape)
        zeros = (0,) * rank
        match rng.integers(8):
            case 0:
                at = b(Transpose(tuple(int(p) for p in rng.permutation(rank))), at)
            case 1:
                low, high = (tuple(int(p) for p in rng.integers(0, 3, rank)) for _ in range(2))
                at = b(Pad(low, high, zeros, 0.25), at)
            case 2:
                at = b(Concatenate(int(rng.integers(rank))), at, b(Relu(), at))
            case 3:
                ones = (1,) * rank
                steps = tuple(int(s) for s in rng.integers(1, 3, rank))
                at = b(Slice(zeros, at_shape, steps if rng.random() < 0.5 else ones), at)
            case 4:
                at = b(Reverse((int(rng.integers(rank)),)), at)
            case 5:
                at = b(Multiply(), at, b(Exp(), b(Subtract(), at, b(Maximum(), at, at))))
            case 6:
                at = b(Reshape((*at_shape[1:-1], at_shape[0] * at_shape[-1])), at)
                at = b(Reshape((1, *b.type_of(at).shape)), at)
            case _:
                same = [v for v in values if b.type_of(v).shape == at_shape]
                at = b(Add(), at, same[0] if same else at)
    return b.build([("y", at)])


RANDOM = {f"random_{seed}": random_body(seed) for seed in range(24)}


@pytest.fixture(scope="module")
def random_kernels() -> Kernels:
    return Kernels(RANDOM, emit)


@pytest.mark.parametrize("name", RANDOM)
def test_random_bodies(random_kernels: Kernels, name: str) -> None:
    arrays = operands(RANDOM[name], 7)
    close(random_kernels(name, *arrays)[0], expected(RANDOM[name], arrays)[0])
