"""Bodies that differ in numbers: maps of any size, random numbers of any stream, and code that is shared."""

from __future__ import annotations

import numpy as np

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.lowering.cpu.sizes import of_any_size
from graphc.lowering.generate import generate
from graphc.ops import DotGeneral, Fusion, Input, RandomBits, Transpose, arith
from graphc.passes import pipeline
from tests.lowering.compiled import check, compare

SHAPES = ((3, 5), (7, 4, 2), (61,), (1, 1))


def _moved(b: GraphBuilder, name: str, shape: tuple[int, ...]) -> Value:
    x, y = (b(Input(f"{name}_{part}", DType.F32, shape)) for part in "xy")
    return arith.add(b, arith.multiply(b, x, 0.5), y)


def _fusion(b: GraphBuilder, out: Value) -> Fusion:
    return Fusion("map", b.build([("out0", out)]))


def test_tensors_of_one_shape_are_flat() -> None:
    b = GraphBuilder("flat")
    found = of_any_size(_fusion(b, _moved(b, "a", (3, 5))))
    assert found is not None and found.sizes == {"elements": 15}
    assert found.fusion.body.type_of(found.fusion.body.outputs[0][1]).shape == (
        Dim.symbol("elements"),
    )


def test_vectors_over_the_last_dimension_are_columns() -> None:
    b = GraphBuilder("columns")
    x, v = b(Input("x", DType.F32, (4, 3, 5))), b(Input("v", DType.F32, (5,)))
    y = arith.multiply(b, x, arith.as_spread(b, v, (4, 3, 5), (2,)))
    found = of_any_size(_fusion(b, y))
    assert found is not None and found.sizes == {"rows": 12, "columns": 5}


def test_other_bodies_have_one_size() -> None:
    b = GraphBuilder("other")
    x, v = b(Input("x", DType.F32, (4, 5))), b(Input("v", DType.F32, (4,)))
    along = arith.multiply(b, x, arith.as_spread(b, v, (4, 5), (0,)))
    assert of_any_size(_fusion(b, along)) is None
    assert of_any_size(_fusion(b, b(Transpose((1, 0)), x))) is None


def test_maps_that_differ_in_size_share_code() -> None:
    b = GraphBuilder("shared")
    graph = b.build([(f"out{i}", _moved(b, f"p{i}", s)) for i, s in enumerate(SHAPES)])
    fused, _ = pipeline.run(graph)
    spec, _ = generate(fused, {})
    assert len(spec.kernels) == 4 and len({k.name for k in spec.kernels}) == 1
    rng = np.random.default_rng(0)
    check(
        graph,
        {
            str(n.op.attributes()["label"]): rng.standard_normal(n.types[0].shape).astype("f4")
            for n in graph.inputs
        },
    )


def test_products_with_dropouts_behind_share_code_whatever_their_streams() -> None:
    """Rows and columns of any number, so that tiles of every size hand over their results in loops."""
    rows, columns = Dim.symbol("M"), Dim.symbol("N")
    b = GraphBuilder("dropouts", {"M": Bounds(), "N": Bounds()})
    key = b(Input("key", DType.I64, (2,)))
    outputs = []
    for i, stream in enumerate((3, 1 << 24)):
        x = b(Input(f"x{i}", DType.F32, (rows, 5)))
        y = b(Input(f"y{i}", DType.F32, (5, columns)))
        product = b(DotGeneral((), (), (1,), (0,)), x, y)
        shape = (rows, columns)
        kept = arith.compare(b, "lt", b(RandomBits(stream, shape), key), 0)
        outputs.append((f"out{i}", arith.select(b, kept, product, 0.0)))
    graph = b.build(outputs)
    fused, _ = pipeline.run(graph)
    spec, _ = generate(fused, {})
    assert len(spec.kernels) == 2 and len({k.name for k in spec.kernels}) == 1
    rng = np.random.default_rng(0)
    module = None
    for m, n in ((1, 1), (3, 17), (13, 16), (20, 43)):
        inputs: dict[str, np.ndarray] = {"key": np.array([7, 1 << 40], "i8")}
        for i in range(2):
            inputs[f"x{i}"] = rng.standard_normal((m, 5)).astype("f4")
            inputs[f"y{i}"] = rng.standard_normal((5, n)).astype("f4")
        if module is None:
            module = check(graph, inputs)
        compare(module, graph, inputs, {})
