"""Products by warp groups against the interpreter: layouts, ragged ends, batches, what follows; and who takes which."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.lowering.cuda.hopper.tiles import Cut, choose
from graphc.ops import Convert, DotGeneral, Gelu, Parameter, Transpose
from graphc.ops import functional as f
from tests.lowering.cuda.emulated import compile_device
from tests.lowering.cuda.hopper.networks import Compiled, N, Network, compiled

CUTS = {
    320: Cut(128, 256, 2),
    160: Cut(128, 128, 2),
    96: Cut(128, 64),
    224: Cut(64, 256),
    72: Cut(64, 64, 2),
}


def product(
    network: Network,
    name: str,
    lhs: Sequence[DimLike],
    rhs: Sequence[DimLike],
    contract: tuple[int, int],
    batch: int = 0,
    dtype: DType = DType.BF16,
    weight: bool = False,
) -> Value:
    """A product of an input and an input or a weight; `contract` says which dims are multiplied."""
    x = network.input(f"x_{name}", dtype, lhs)
    if weight:
        sizes = tuple(d for d in rhs if isinstance(d, int))
        w = network.b(Parameter(f"w_{name}", dtype, sizes, "zeros()"))
    else:
        w = network.input(f"w_{name}", dtype, rhs)
    shared = tuple(range(batch))
    return network.b(DotGeneral(shared, shared, contract[:1], contract[1:]), x, w)


@functools.cache
def network() -> Compiled:
    """All cases, each an output of its own."""
    n = Network(open=True)
    b, out = n.b, n.outputs
    out.append(("plain", product(n, "plain", (200, 136), (160, 136), (1, 1))))
    out.append(("wide", product(n, "wide", (300, 72), (320, 72), (1, 1), dtype=DType.F16)))
    out.append(("batched", product(n, "batched", (3, 70, 64), (3, 96, 64), (2, 2), batch=1)))
    out.append(("heads", product(n, "heads", (2, 3, 70, 72), (2, 3, 32, 72), (3, 3), batch=2)))
    out.append(("deep", product(n, "deep", (100, 1096), (224, 1096), (1, 1))))

    y = b(Convert(DType.F32), product(n, "odd", (77, 72), (72, 45), (1, 0), weight=True))
    bias = n.input("bias", DType.F32, (45,))
    out.append(("odd", b(Gelu(), f.add(b, y, bias))))

    y = b(Convert(DType.F32), product(n, "residual", (2, 65, 64), (96, 64), (2, 1), weight=True))
    beside = n.input("beside", DType.BF16, (2, 65, 96))
    bias = n.input("bias2", DType.F32, (96,))
    y = f.add(b, f.add(b, y, bias), b(Convert(DType.F32), beside))
    out.append(("residual", b(Convert(DType.BF16), y)))

    y = product(n, "turned", (130, 64), (72, 64), (1, 1), weight=True)
    out.append(("turned", b(Transpose((1, 0)), y)))
    out.append(("open", product(n, "open", (N, 64), (64, 64), (1, 1), weight=True)))
    return compiled(n, CUTS)


def test_every_product_is_for_warp_groups() -> None:
    assert len(network().kernels) == 9
    for text in network().kernels:
        assert "graphc_empty<" in text and "graphc_fill<" in text


@pytest.mark.parametrize("reverse", [False, True])
def test_products_are_what_the_interpreter_computes(reverse: bool) -> None:
    network().check(200, 8e-3, reverse)


@pytest.mark.parametrize("rows", [0, 1, 65])
def test_rows_are_known_when_it_is_called(rows: int) -> None:
    network().check(rows, 8e-3)


def test_neighbours_are_stored_and_read_together() -> None:
    (residual,) = (t for t in network().kernels if "64, 64>>" not in t and "a3" in t)
    assert residual.count("graphc_copy_16") >= 3  # bias twice, what is beside, the result


def source(
    m: DimLike,
    n: int,
    k: int,
    target: str = "cuda:sm_90a",
    dtype: DType = DType.BF16,
    turn: bool = False,
) -> str:
    network = Network()
    lhs = (k, m) if turn else (m, k)
    y = product(network, "p", lhs, (n, k), (0 if turn else 1, 1), dtype=dtype)
    network.outputs.append(("y", y))
    _, program = compile_device(network.b.build(network.outputs), {}, target)
    return program.source


def test_other_gpus_have_the_tiles_of_warps() -> None:
    for target in ("cuda:sm_80", "cuda:sm_90"):
        text = source(128, 128, 128, target)
        assert "graphc_ring" not in text and "graphc_multiply<" in text.split("__global__")[1]


@pytest.mark.parametrize(
    "case",
    [
        {"m": 16, "n": 128, "k": 128},  # few rows
        {"m": 128, "n": 128, "k": 24},  # a short sum
        {"m": 64, "n": 64, "k": 4096},  # a long one, of few tiles
        {"m": 128, "n": 100, "k": 128},  # columns that come in no groups
        {"m": 128, "n": 128, "k": 100},  # rows that do not start on 16 bytes
        {"m": 128, "n": 128, "k": 128, "dtype": DType.F32},
        {"m": 128, "n": 128, "k": 128, "turn": True},
    ],
    ids=str,
)
def test_what_is_small_or_lies_otherwise_goes_elsewhere(case: dict[str, object]) -> None:
    assert "graphc_ring" not in source(**case)  # type: ignore[arg-type]


def test_cuts_fit_and_fill_the_gpu() -> None:
    assert choose(4096, 4096, 1) == choose(8192, 8192, 1) == Cut(128, 256, 2)
    assert choose(128 * 99, 256, 1) == Cut(128, 256)  # whose rows of tiles come in no pairs
    assert choose(128, 768, 1) == Cut(64, 32)  # 48 tiles, of which each has a multiprocessor
    for m in (64, 128):
        for n in (32, 64, 128, 256):
            cut = Cut(m, n)
            assert 4 <= cut.stages <= 8 and cut.shared_bytes <= 227 << 10
            assert cut.shared_bytes % 1024 == 0 and np.prod([cut.threads - 128, cut.sums]) == m * n
