"""Gradients of weights against the interpreter: long sums shared among blocks, K the slow dimension of operands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from graphc.artifact.cuda.target import parse_cuda_target
from graphc.artifact.cuda.toolchain import compile_source
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.select import select
from graphc.ops import ConvWeightGradient, DotGeneral, Fusion, Input
from graphc.ops import functional as f
from tests.cuda.sass import instructions, resources
from tests.lowering.cuda.bodies import Kernels

N = Dim.symbol("N")
TYPES = {"f32": DType.F32, "tf32": DType.F32, "bf16": DType.BF16, "f16": DType.F16}
TOLERANCE = {"f32": 3e-6, "tf32": 2e-3, "bf16": 8e-3, "f16": 1e-3}


@dataclass(frozen=True)
class Case:
    """A convolution's attributes, and how it is computed."""

    x: tuple[DimLike, ...]
    features: int
    kernel: tuple[int, ...]
    precision: str
    strides: int = 1
    padding: int = 0
    dilation: int = 1
    crop: int = 0


CASES = {
    "padded": Case((2, 9, 11, 16), 24, (3, 3), "bf16", padding=1),
    "strided": Case((2, 9, 9, 8), 72, (3, 3), "f16", strides=2, padding=-1),
    "border": Case((3, 8, 8, 16), 16, (3, 3), "tf32", dilation=2, crop=1),
    "picture": Case((2, 12, 12, 3), 20, (5, 5), "bf16", strides=2, padding=2),
    "plain": Case((2, 7, 7, 5), 12, (3, 3), "f32", padding=1),
    "signal": Case((5, 40, 8), 16, (4,), "f32", strides=2),
    "open": Case((N, 6, 6, 16), 16, (2, 2), "bf16"),
}


def convolution(case: Case) -> Graph:
    rank, dtype = len(case.kernel), TYPES[case.precision]
    b = GraphBuilder("gradient", {"N": Bounds(1)} if N in case.x else {})
    inner = [
        (d + 2 * case.padding - (k - 1) * case.dilation - 1) // case.strides + 1  # type: ignore[operator]
        for d, k in zip(case.x[1:-1], case.kernel, strict=True)
    ]
    given = (case.x[0], *(d + 2 * case.crop for d in inner), case.features)
    op = ConvWeightGradient(
        case.kernel,
        (case.strides,) * rank,
        ((case.padding,) * 2,) * rank,
        (case.dilation,) * rank,
        ((case.crop,) * 2,) * rank,
        channels_last=True,
    )
    dw = b(op, b(Input("x", dtype, case.x)), b(Input("given", dtype, given)))
    return b.build([("dw", dw)])


PRODUCTS = {"f32": (4000, 40, 24), "bf16": (6000, 64, 136), "f16": (6000, 33, 20)}


def product(precision: str) -> Graph:
    rows, m, n = PRODUCTS[precision]
    dtype = TYPES[precision]
    b = GraphBuilder("product")
    x, y = b(Input("x", dtype, (rows, m))), b(Input("y", dtype, (rows, n)))
    dw = b(DotGeneral((), (), (0,), (0,)), x, y)
    bias = b(Input("bias", dtype, (n,)))
    return b.build([("dw", f.add(b, dw, bias))])


@cache
def kernels() -> Kernels:
    bodies = {name: convolution(case) for name, case in CASES.items()}
    bodies |= {f"product_{p}": product(p) for p in PRODUCTS}
    names = {id(body): name for name, body in bodies.items()}

    def choose(fusion: Fusion) -> Kernel:
        case = CASES.get(names[id(fusion.body)])
        precision = "tf32" if case and case.precision == "tf32" else "f32"
        return select(fusion, frozenset(), Setting(precision))

    return Kernels(bodies, choose)


def agrees(name: str, precision: str, arrays: list[np.ndarray], **dims: int) -> None:
    (found,) = kernels()(name, *arrays, **dims)
    (other,) = kernels()(name, *arrays, reverse=True, **dims)
    np.testing.assert_array_equal(found, other)  # whatever block is first
    body = kernels().bodies[name]
    root = next(n for n in body.nodes if n.op.name in ("conv_weight_gradient", "dot_general"))
    (want,) = root.op.evaluate(*(a.astype(np.float64) for a in arrays[:2]))
    for bias in arrays[2:]:
        want = want.astype(bias.dtype).astype(np.float64) + bias.astype(np.float64)
    error = np.abs(found.astype(np.float64) - want).max() / np.abs(want).max()
    assert error <= TOLERANCE[precision]


@pytest.mark.parametrize("name", CASES)
def test_convolutions(name: str) -> None:
    case = CASES[name]
    dims = {"N": 3} if name == "open" else {}
    rng = np.random.default_rng(0)
    types = [n.types[0] for n in kernels().bodies[name].inputs]
    arrays = [rng.normal(size=t.concrete(dims)).astype(t.dtype.numpy) for t in types]
    agrees(name, case.precision, arrays, **dims)
    chosen = kernels().functions[name].kernel
    assert chosen.family == "conv_weight"


@pytest.mark.parametrize("precision", PRODUCTS)
def test_products_of_many_rows_are_shared_among_blocks(precision: str) -> None:
    name, rng = f"product_{precision}", np.random.default_rng(0)
    types = [n.types[0] for n in kernels().bodies[name].inputs]
    arrays = [rng.normal(size=t.concrete({})).astype(t.dtype.numpy) for t in types]
    agrees(name, precision, arrays)
    assert len(kernels().functions[name].kernel.stages) == 2


def test_they_run_on_tensor_cores_and_spill_nothing() -> None:
    target = parse_cuda_target("cuda:sm_80")
    binary = compile_source(kernels().source, target)
    assert not [k for k, r in resources(binary.log).items() if r.spilled]
    found = instructions(binary.cubin)
    for name, case in CASES.items():
        stages = kernels().functions[name].kernel.stages
        first = found[f"k_{name}" if len(stages) == 1 else f"k_{name}_0"]
        assert bool(first["HMMA"]) == (case.precision != "f32"), name
