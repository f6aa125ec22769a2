"""State: inputs that a call overwrites with their next values, and weights that are packed while the module runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.artifact import ModuleInputError
from graphc.artifact import open as open_module
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ops import (
    Add,
    BroadcastInDim,
    ConvGeneral,
    DotGeneral,
    Input,
    ReduceSum,
    Reshape,
    Reverse,
    arith,
)
from graphc.reference import interpret
from tests.lowering.compiled import compile_graph


def state(b: GraphBuilder, name: str, *shape: int, dtype: DType = DType.F32) -> Value:
    return b(Input(name, dtype, shape, state=True))


def arrays(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        n.op.label: np.asarray(rng.standard_normal(n.op.shape) * 3, n.op.dtype.numpy)
        for n in graph.inputs
    }


def run_twice(graph: Graph) -> None:
    """Two calls of the compiled module, in guarded memory, against the interpreter's."""
    compiled = compile_graph(graph, {})
    module = open_module(compiled.path, debug=True)
    names = [n.op.label for n, _ in graph.state]
    given = arrays(graph)
    expected = {k: v.copy() for k, v in given.items()}
    for _ in range(2):
        want = interpret(graph, expected, {})
        found = module(**given)
        assert list(found) == [name for name, _ in graph.results]
        for name, value in found.items():
            np.testing.assert_allclose(value, want[name], rtol=1e-5, atol=1e-5, err_msg=name)
        for name in names:
            after = want.get(name, expected[name])
            np.testing.assert_allclose(given[name], after, rtol=1e-5, atol=1e-5, err_msg=name)
            expected[name] = given[name].copy()


def test_a_step_of_gradient_descent() -> None:
    b = GraphBuilder("step")
    x = b(Input("x", DType.F32, (4, 3)))
    w, kept = state(b, "w", 5, 3), state(b, "kept", 2)
    count = state(b, "count", dtype=DType.I64)
    y = b(DotGeneral((), (), (1,), (1,)), x, w)
    gradient = b(DotGeneral((), (), (0,), (0,)), y, x)
    after = arith.subtract(b, w, arith.multiply(b, gradient, 0.01))
    again = b(DotGeneral((), (), (1,), (1,)), x, after)
    one = b(Add(), count, arith.constant(b, 1, DType.I64))
    run_twice(b.build([("y", y), ("again", again), ("w", after), ("count", one), ("kept", kept)]))


def test_the_readers_of_a_state_run_before_its_writer() -> None:
    b = GraphBuilder("late")
    w = state(b, "w", 6)
    after = arith.add(b, w, 1.0)
    late = b(ReduceSum((0,)), b(Reverse((0,)), w))
    run_twice(b.build([("w", after), ("late", late)]))


def test_states_that_change_places() -> None:
    b = GraphBuilder("swap")
    v, w = state(b, "v", 7), state(b, "w", 7)
    run_twice(b.build([("v", w), ("w", v)]))


def test_a_state_that_is_read_out_of_place() -> None:
    b = GraphBuilder("reverse")
    w = state(b, "w", 9)
    run_twice(b.build([("w", b(Reverse((0,)), w))]))


def test_a_state_whose_reader_needs_its_next_value() -> None:
    b = GraphBuilder("both")
    w = state(b, "w", 8)
    after = arith.multiply(b, w, 2.0)
    total = b(BroadcastInDim((8,), ()), b(ReduceSum((0,)), after))
    both = b(Reverse((0,)), arith.add(b, w, total))
    run_twice(b.build([("w", after), ("both", both)]))


def test_one_value_for_two_states_and_a_constant_one() -> None:
    b = GraphBuilder("same")
    v, w, c = state(b, "v", 4), state(b, "w", 4), state(b, "c", 4)
    total = arith.add(b, v, w)
    zero = b(BroadcastInDim((4,), ()), arith.constant(b, 0.0, DType.F32))
    run_twice(b.build([("v", total), ("w", total), ("c", zero), ("old", c)]))


def test_a_reshaped_state_is_the_same_bytes() -> None:
    b = GraphBuilder("flat")
    w = state(b, "w", 2, 3)
    flat = b(Reshape((6,)), w)
    after = b(Reshape((2, 3)), arith.add(b, flat, 1.0))
    run_twice(b.build([("w", after), ("flat", flat)]))


def conv(b: GraphBuilder, x: Value, w: Value, groups: int = 1, stride: int = 1) -> Value:
    op = ConvGeneral((stride, stride), ((1, 1), (1, 1)), (1, 1), (1, 1), groups)
    return b(op, x, w)


def transposed(b: GraphBuilder, x: Value, w: Value) -> Value:
    return b(ConvGeneral((1, 1), ((1, 1), (1, 1)), (2, 2), (1, 1), 1), x, w)


@pytest.mark.parametrize(
    ("shape", "apply"),
    [
        ((20, 8, 3, 3), conv),
        ((20, 4, 3, 3), lambda b, x, w: conv(b, x, w, groups=2)),
        ((8, 1, 3, 3), lambda b, x, w: conv(b, x, w, groups=8)),
        ((5, 8, 3, 3), lambda b, x, w: conv(b, x, w, stride=2)),
        ((5, 8, 3, 3), transposed),
        (
            (20, 8, 1, 1),
            lambda b, x, w: b(ConvGeneral((1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1), 1), x, w),
        ),
    ],
    ids=["conv", "grouped", "depthwise", "strided", "transposed", "pointwise"],
)
def test_filters_that_change_are_packed_while_the_module_runs(
    shape: tuple[int, ...], apply: Callable[[GraphBuilder, Value, Value], Value]
) -> None:
    b = GraphBuilder("filter")
    x = b(Input("x", DType.F32, (2, 8, 6, 6)))
    w = state(b, "w", *shape)
    run_twice(b.build([("y", apply(b, x, w)), ("w", arith.multiply(b, w, 0.5))]))


def test_state_is_written_where_the_caller_keeps_it() -> None:
    b = GraphBuilder("count")
    w = state(b, "w", 3)
    module = compile_graph(b.build([("w", arith.add(b, w, 1.0))]), {})
    assert [p.state for p in module.inputs] == [True] and module.outputs == ()
    room = np.zeros(16, np.uint8)[1:13].view(np.float32)  # not even aligned
    module(w=room)
    assert room.tolist() == [1, 1, 1]
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    for bad in (frozen, np.zeros(6, np.float32)[::2], [0.0, 0.0, 0.0], np.zeros(3)):
        with pytest.raises(ModuleInputError, match="the call overwrites it"):
            module(w=bad)


def test_states_may_not_share_memory() -> None:
    b = GraphBuilder("pair")
    v, w = state(b, "v", 3), state(b, "w", 3)
    module = compile_graph(b.build([("v", arith.add(b, v, w)), ("w", w)]), {})
    one = np.zeros(4, np.float32)
    with pytest.raises(ModuleInputError, match="state `v` overlaps input `w`"):
        module(v=one[:3], w=one[1:])
