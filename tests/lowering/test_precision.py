"""`--precision`: what is stored and multiplied, what targets without tiles do, and how exact whole graphs are."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.cpu.features import CpuTarget, detect_host, parse_target
from graphc.lowering.cpu.select import select
from graphc.lowering.generate import generate
from graphc.lowering.precision import lower_precision, uses_tiles
from graphc.ops import (
    Add,
    BroadcastInDim,
    ConvGeneral,
    DotGeneral,
    Fusion,
    Input,
    LayerNorm,
    MaxPool,
    Pad,
    Parameter,
    ReduceSum,
    Relu,
    Reshape,
    Softmax,
)
from graphc.passes import pipeline
from graphc.passes.even_channels import even_channels
from graphc.reference import interpret
from tests.lowering.compiled import HOST_RUNS_TILES, TILES, compile_graph, random_parameters

AMX, PLAIN = parse_target(TILES), parse_target("x86-64-v4")
N = Dim.symbol("N")


def network() -> Graph:
    """Convolutions with 3 and 16 channels, a residual, a depthwise one, pooling, attention's products, a norm."""
    b = GraphBuilder("network", {"N": Bounds(1, 8)})
    image = b(Input("image", DType.F32, (N, 3, 12, 12)))

    def conv(x, path, out, kernel, groups=1, pad=0, stride=1):
        channels = b.type_of(x).shape[1] // groups
        weight = b(Parameter(path, DType.F32, (out, channels, kernel, kernel), "normal()"))
        pairs = ((pad, pad), (pad, pad))
        op = ConvGeneral((stride, stride), pairs, (1, 1), (1, 1), groups, False)
        return b(op, x, weight)

    x = b(Relu(), conv(image, "stem", 16, 3, pad=1))
    y = b(Relu(), conv(x, "wide", 16, 3, pad=1))
    x = b(Add(), x, conv(y, "point", 16, 1))
    x = b(Relu(), conv(x, "depth", 16, 3, groups=16, pad=1))
    x = b(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False), x)
    rows = b(Reshape((N, 16, 36)), x)
    scale, shift = (b(Parameter(p, DType.F32, (36,), "normal()")) for p in ("scale", "shift"))
    rows = b(LayerNorm(1, 1e-5), rows, scale, shift)
    scores = b(DotGeneral((0,), (0,), (2,), (2,)), rows, rows)
    mixed = b(DotGeneral.matrix(1), b(Softmax(2), scores), rows)
    head = b(Parameter("head", DType.F32, (36, 20), "normal()"))
    bias = b(BroadcastInDim((N, 16, 20), (2,)), b(Parameter("bias", DType.F32, (20,), "normal()")))
    out = b(Add(), b(DotGeneral((), (), (2,), (0,)), mixed, head), bias)
    return b.build([("out", out), ("total", b(ReduceSum((1, 2)), rows))])


def fused(graph: Graph, *, tiles: bool = True) -> Graph:
    return pipeline.run(graph, tiles=tiles)[0]


def scaled_parameters(graph: Graph) -> dict[str, np.ndarray]:
    return {k: v * np.float32(0.2) for k, v in random_parameters(graph).items()}


def image(n: int) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(n).standard_normal((n, 3, 12, 12)).astype(np.float32)}


def worst(found: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    assert list(found) == list(want)
    assert all(found[k].dtype == want[k].dtype == np.float32 for k in want)
    return max(np.abs(found[k] - want[k]).max() / np.abs(want[k]).max() for k in want)


def families(graph: Graph, target: CpuTarget = AMX) -> list[str]:
    """The family that takes each fusion, weights being known when the module is built."""
    static = {n.id for n in graph.nodes if n.op.name in ("parameter", "convert", "pad")}
    return [
        select(
            n.op, frozenset(i for i, v in enumerate(n.operands) if v.node in static), target
        ).family
        for n in graph.nodes
        if isinstance(n.op, Fusion)
    ]


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("high", 2e-5)])
def test_the_lowered_graph_means_what_it_says(precision: str, tolerance: float) -> None:
    graph = network()
    parameters, inputs = scaled_parameters(graph), image(2)
    lowered, note = lower_precision(fused(graph), precision, AMX)
    assert note == ""
    error = worst(interpret(lowered, inputs, parameters), interpret(graph, inputs, parameters))
    assert 0 < error <= tolerance
    ports = [n.types[0].dtype for n in (*lowered.inputs, *lowered.parameters)]
    assert set(ports) == {DType.F32}
    assert {t.dtype for n in lowered.nodes for t in n.types} == {DType.F32, DType.BF16}


@pytest.mark.parametrize("precision", ["bf16", "high"])
def test_tiles_take_every_product(precision: str) -> None:
    lowered, _ = lower_precision(fused(network()), precision, AMX)
    found = families(lowered)
    assert found.count("tile_conv") == 2 and found.count("tiles") == 4
    assert found.count("depthwise") == found.count("pool") == 1
    assert "matmul" not in found and "conv" not in found


@pytest.mark.parametrize(
    ("precision", "modelled", "exact"),
    [("bf16", 0.01, 0.03), ("high", 2e-5, 2e-5)],
)
def test_modules(precision: str, modelled: float, exact: float) -> None:
    graph = network()
    parameters = scaled_parameters(graph)
    spec, objects = generate(fused(graph), parameters, target=TILES, precision=precision)
    assert (spec.precision, spec.note) == (precision, "") and objects
    assert {"amx_tile", "amx_bf16"} <= set(spec.cpu_features)
    if not HOST_RUNS_TILES:
        return
    module = compile_graph(graph, parameters, TILES, precision=precision)
    lowered, _ = lower_precision(fused(graph), precision, AMX)
    for n in (1, 3):
        found = dict(module(**image(n)))
        assert worst(found, interpret(lowered, image(n), parameters)) <= modelled
        assert worst(found, interpret(graph, image(n), parameters)) <= exact


@pytest.mark.parametrize("precision", ["bf16", "high"])
def test_targets_without_tiles_compute_in_f32_and_say_so(precision: str) -> None:
    graph = fused(network(), tiles=False)
    same, note = lower_precision(graph, precision, PLAIN)
    assert same is graph and "x86-64-v4 has no AMX tiles" in note
    assert not uses_tiles(precision, "x86-64-v4") and uses_tiles(precision, TILES)
    spec, _ = generate(graph, scaled_parameters(network()), target="x86-64-v4", precision=precision)
    assert spec.precision == "f32" and spec.note == note


def test_f32_stays_as_it_is_and_other_names_are_refused() -> None:
    graph = fused(network(), tiles=False)
    assert lower_precision(graph, "f32", AMX) == (graph, "")
    with pytest.raises(ValueError, match="there is no precision 'f16'; there are f32, bf16, high"):
        lower_precision(graph, "f16", AMX)


def declared(dtype: DType) -> Graph:
    b = GraphBuilder("declared")
    x = b(Input("x", dtype, (2, 8, 9, 9)))
    weight = b(Parameter("w", dtype, (16, 8, 3, 3), "normal()"))
    x = b(ConvGeneral((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1, False), x, weight)
    x = b(MaxPool((3, 3), (3, 3), ((0, 0), (0, 0)), (1, 1), False), b(Relu(), x))
    flat = b(Reshape((2, 144)), x)
    y = b(DotGeneral.matrix(), flat, b(Parameter("v", dtype, (144, 10), "normal()")))
    return b.build([("y", y)])


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16], ids=str)
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", TILES])
def test_models_declared_in_half_precision_do_not_fall_to_loops(target: str, dtype: DType) -> None:
    graph = declared(dtype)
    found = families(fused(graph), parse_target(target))
    tiles = target == TILES and dtype is DType.BF16
    own = {"tile_conv", "tiles"} if tiles else {"conv", "matmul"}
    assert own | {"pool"} <= set(found)
    parameters = random_parameters(graph)
    _, objects = generate(fused(graph), parameters, target=target)
    assert objects
    if parse_target(target).supported_by(detect_host()):
        return
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((2, 8, 9, 9)).astype(dtype.numpy)}
    got = compile_graph(graph, parameters, target)(**inputs)["y"].astype(np.float32)
    want = interpret(graph, inputs, parameters)["y"].astype(np.float32)
    assert np.abs(got - want).max() <= 0.01 * np.abs(want).max()


def test_odd_channels_get_one_more_with_the_border() -> None:
    graph, _ = pipeline.run(network(), until="halo")
    even = even_channels(graph)
    convs = [n for n in even.nodes if isinstance(n.op, ConvGeneral) and n.op.groups == 1]
    assert [even.type_of(n.operands[0]).shape[-1] for n in convs] == [4, 16, 16]
    (pad,) = (n for n in even.nodes if isinstance(n.op, Pad) and n.types[0].shape[-1] == 4)
    assert pad.op.high == (0, 1, 1, 1)  # one pad, border and channel together
    parameters, inputs = scaled_parameters(graph), image(2)
    assert worst(interpret(even, inputs, parameters), interpret(graph, inputs, parameters)) == 0
    assert even_channels(even) is even
