"""Matrix products: `DotGeneral`, `matmul` and `einsum` against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ir.op import Array, OpError
from graphc.ir.types import TensorType
from graphc.ops import functional
from graphc.reference import interpret
from tests.ops.torch_oracle import quick

N, T = Dim.symbol("N"), Dim.symbol("T")
seeds = st.integers(0, 2**32 - 1)


def t(*shape: Any, dtype: DType = DType.F32) -> TensorType:
    return TensorType(dtype, shape)


def through(build: Any, *arrays: Array) -> Array:
    """A graph over the arrays, interpreted; its inferred type is checked on the way."""
    b = GraphBuilder("g")
    xs = [b(o.Input(f"x{i}", DType.from_numpy(x.dtype), x.shape)) for i, x in enumerate(arrays)]
    graph = b.build([("y", build(b, *xs))])
    return interpret(graph, {f"x{i}": x for i, x in enumerate(arrays)}, {})["y"]


@given(seeds)
@quick
def test_dot_general(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(5, 3, 2, 6))
    (out,) = o.DotGeneral((1, 0), (1, 2), (3,), (0,)).evaluate(x, y)
    np.testing.assert_allclose(out, np.einsum("abcd,dbae->bace", x, y))
    (outer,) = o.DotGeneral((), (), (), ()).evaluate(x[0, 0], y[0, 0])
    np.testing.assert_allclose(outer, np.tensordot(x[0, 0], y[0, 0], 0))


def test_sums_are_wide_and_integers_wrap() -> None:
    ones = np.ones((1, 4096), np.float16)
    op = o.DotGeneral((), (), (1,), (1,))
    assert op.evaluate(ones, ones)[0].item() == 4096
    x = np.full((1, 3), 100, np.int8)
    assert op.evaluate(x, x)[0].item() == int(np.int64(30000).astype(np.int8))
    assert op.evaluate(ones[:, :0], ones[:, :0])[0].tolist() == [[0]]


def test_types_of_named_dims() -> None:
    op = o.DotGeneral((0, 1), (0, 1), (3,), (3,))
    q = t(N, 12, T, 64)
    (y,) = op.infer(q, q)
    assert str(y) == "f32[N, 12, T, T]"
    assert op.flops([q, q], [y]) == N * T * T * (12 * 64 * 2)


@pytest.mark.parametrize(
    ("types", "code", "words"),
    [
        ([t(2, 3), t(4, 5)], "E0203", "f32[2, 3] and f32[4, 5]"),
        ([t(2, 3), t(3, 5, dtype=DType.F16)], "E0206", "f16[3, 5]"),
        ([t(2, 3, dtype=DType.BOOL)] * 2, "E0206", "bool"),
        ([t(2), t(2, 3)], "E0211", "axis 1"),
    ],
)
def test_operands_that_do_not_fit(types: list[TensorType], code: str, words: str) -> None:
    with pytest.raises(OpError) as caught:
        o.DotGeneral((), (), (1,), (0,)).infer(*types)
    assert caught.value.code == code
    assert words in caught.value.message


def test_dimensions_pair_up() -> None:
    with pytest.raises(OpError, match="do not pair up"):
        o.DotGeneral((), (), (1,), ()).infer(t(2, 3), t(3, 4))


SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((1, 2, 3), (7, 5, 3, 4)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_matmul_is_numpys(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=left), rng.normal(size=right)
    np.testing.assert_allclose(through(functional.matmul, x, y), np.matmul(x, y))


@pytest.mark.parametrize(
    ("left", "right", "code", "help"),
    [
        ((2, 3), (4, 5), "E0203", None),
        ((2, 3), (5, 3), "E0203", "transposing the second, [3, 5], would fit"),
        ((3, 2), (3, 5), "E0203", "transposing the first, [2, 3], would fit"),
        ((4, 2, 3), (5, 3, 2), "E0202", None),
        ((), (3, 2), "E0205", None),
        ((2, 3), (), "E0205", None),
    ],
)
def test_matmul_refuses(
    left: tuple[int, ...], right: tuple[int, ...], code: str, help: str | None
) -> None:
    b = GraphBuilder("g")
    x, y = (b(o.Input(n, DType.F32, s)) for n, s in (("x", left), ("y", right)))
    with pytest.raises(OpError) as caught:
        functional.matmul(b, x, y)
    assert (caught.value.code, caught.value.help) == (code, help)


EQUATIONS = [
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("ij->ji", [(2, 3)]),
    ("ij->", [(2, 3)]),
    ("ij->j", [(2, 3)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iji->j", [(3, 2, 3)]),
    ("i,j->ij", [(2,), (3,)]),
    ("i,i->i", [(3,), (3,)]),
    ("ij,k->i", [(2, 3), (4,)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 3)]),
    ("...i->...", [(2, 3, 4)]),
    ("i...->...i", [(2, 3, 4)]),
    ("a...,...b->...ab", [(2, 3), (3, 4)]),
    ("ab,cb,bd->acd", [(2, 3), (4, 3), (3, 5)]),
    ("b, b ->", [(3,), (3,)]),
    (",i->i", [(), (3,)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_einsum_is_numpys(equation: str, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in shapes]
    found = through(lambda b, *xs: functional.einsum(b, equation, *xs), *arrays)
    np.testing.assert_allclose(found, np.einsum(equation, *arrays), atol=1e-12)


def test_einsum_keeps_named_dims() -> None:
    b = GraphBuilder("g")
    q = b(o.Input("q", DType.F32, (N, 2, T, 8)))
    y = functional.einsum(b, "bhqd,bhkd->bhqk", q, q)
    assert str(b.type_of(y)) == "f32[N, 2, T, T]"
    assert [n.op.name for n in b.nodes] == ["input", "dot_general"]


@pytest.mark.parametrize(
    ("equation", "code", "words"),
    [
        ("ij,jk->ik,", "E0215", "malformed"),
        ("i1,jk->ik", "E0215", "malformed"),
        ("i..j,jk->ik", "E0215", "malformed"),
        ("ij->ij", "E0215", "for 1 operands and gets 2"),
        ("ij,jk->il", "E0215", '"l" of the result'),
        ("ij,jk->ii", "E0215", "twice"),
        ("ijk,jk->i", "E0205", "does not fit f32[2, 3]"),
        ("ij,ik->jk", "E0203", "i is 2 in [2, 3] and 3 in [3, 4]"),
    ],
)
def test_einsum_refuses(equation: str, code: str, words: str) -> None:
    b = GraphBuilder("g")
    x, y = (b(o.Input(n, DType.F32, s)) for n, s in (("x", (2, 3)), ("y", (3, 4))))
    with pytest.raises(OpError) as caught:
        functional.einsum(b, equation, x, y)
    assert caught.value.code == code
    assert words in caught.value.message
