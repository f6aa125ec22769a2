"""Kernels that write the state of one parameter are one; others stay as they are."""

from __future__ import annotations

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ops import ConvWeightGradient, DotGeneral, Exp, Input, arith
from graphc.passes import pipeline
from tests.lowering.test_state import run_twice

SHAPE = (40, 30)


def state(b: GraphBuilder, name: str, *shape: int) -> Value:
    return b(Input(name, DType.F32, shape or SHAPE, state=True))


def kernels(graph: Graph) -> list[int]:
    """How many results each kernel has that makes tensors."""
    fused, _ = pipeline.run(graph)
    return [len(n.types) for n in fused.nodes if n.op.name == "fusion" and n.types[0].shape]


def momentum() -> Graph:
    """A momentum, its square's average and the weights, from a scaled gradient with three readers."""
    b = GraphBuilder("step")
    g, w, m, v = b(Input("g", DType.F32, SHAPE)), state(b, "w"), state(b, "m"), state(b, "v")
    norm = arith.sum(b, arith.multiply(b, g, g))
    g = arith.divide(b, g, norm)
    m2 = arith.add(b, arith.multiply(b, m, 0.9), g)
    v2 = arith.add(b, arith.multiply(b, v, 0.9), arith.multiply(b, g, g))
    w2 = arith.subtract(b, arith.subtract(b, w, m2), b(Exp(), v2))
    return b.build([("w", w2), ("m", m2), ("v", v2), ("norm", norm)])


def test_one_kernel_with_three_results() -> None:
    assert kernels(momentum()) == [3]


def descent() -> Graph:
    """Momentum and weights of a layer, from the product that is its gradient; the weights are read besides."""
    b = GraphBuilder("step")
    x, w, m = b(Input("x", DType.F32, (90, 70))), state(b, "w", 80, 70), state(b, "m", 80, 70)
    y = b(DotGeneral((), (), (1,), (1,)), x, w)
    g = b(DotGeneral((), (), (0,), (0,)), y, x)
    m2 = arith.add(b, arith.multiply(b, m, 0.9), arith.multiply(b, g, 1e-3))
    w2 = arith.subtract(b, w, arith.multiply(b, m2, 0.1))
    return b.build([("w", w2), ("m", m2)])


def test_a_gradient_and_its_update_are_one_kernel() -> None:
    assert kernels(descent()) == [1, 2]
    run_twice(descent())


def test_the_gradient_of_a_filter_and_its_update_are_one_kernel() -> None:
    b = GraphBuilder("step")
    x, dy = b(Input("x", DType.F32, (2, 8, 8, 5))), b(Input("dy", DType.F32, (2, 6, 6, 7)))
    w, m = state(b, "w", 7, 5, 3, 3), state(b, "m", 7, 5, 3, 3)
    op = ConvWeightGradient(
        (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), ((0, 0), (0, 0)), 1, channels_last=True
    )
    m2 = arith.add(b, arith.multiply(b, m, 0.9), b(op, x, dy))
    graph = b.build([("w", arith.subtract(b, w, m2)), ("m", m2)])
    assert kernels(graph) == [2]
    run_twice(graph)


def test_two_gradients_of_one_update_stay_products_of_their_own() -> None:
    """Weights that two layers share."""
    b = GraphBuilder("step")
    x, y, w = (
        b(Input("x", DType.F32, SHAPE)),
        b(Input("y", DType.F32, SHAPE)),
        state(b, "w", 30, 30),
    )
    op = DotGeneral((), (), (0,), (0,))
    sums = arith.add(b, b(op, x, y), b(op, y, x))
    graph = b.build([("w", arith.subtract(b, w, arith.multiply(b, sums, 1e-2)))])
    assert sum(kernels(graph)) == 2
    run_twice(graph)


def test_states_are_overwritten_in_place() -> None:
    run_twice(momentum())


def test_not_across_what_lies_between() -> None:
    """The weights need a norm of the new momentum: two kernels, and the norm between them."""
    b = GraphBuilder("step")
    g, w, m = b(Input("g", DType.F32, SHAPE)), state(b, "w"), state(b, "m")
    m2 = arith.add(b, m, g)
    w2 = arith.subtract(b, w, arith.divide(b, m2, arith.sum(b, arith.multiply(b, m2, m2))))
    graph = b.build([("w", w2), ("m", m2)])
    assert kernels(graph) == [1, 1]
    run_twice(graph)


def test_two_parameters_stay_apart() -> None:
    b = GraphBuilder("step")
    outputs = []
    for name in ("one", "two"):
        g = b(Input(f"g_{name}", DType.F32, SHAPE))
        outputs.append((name, arith.subtract(b, state(b, name), g)))
    assert kernels(b.build(outputs)) == [1, 1]


def test_what_is_no_state_stays_apart() -> None:
    """Two readers of one input: each may write over something that dies."""
    b = GraphBuilder("plain")
    x = b(Input("x", DType.F32, SHAPE))
    assert kernels(b.build([("y", b(Exp(), x)), ("z", arith.add(b, x, 1.0))])) == [1, 1]
