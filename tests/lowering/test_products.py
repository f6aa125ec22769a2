"""dot_general in all its forms, compiled: packed weights, batches, transposed operands, named dims, epilogues."""

import numpy as np
import pytest

from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ir.types import TensorType
from graphc.lowering.generic.strides import Axis, merge, read_product
from graphc.ops import Add, BroadcastInDim, DotGeneral, Gelu, Input, Parameter, Relu, Transpose
from tests.lowering.compiled import RUNNABLE, check

N, T = Dim.symbol("N"), Dim.symbol("T")


def draft():
    b = GraphBuilder("products", {"N": Bounds(), "T": Bounds(1, 64)})
    x = b(Input("x", DType.F32, (N, T, 24)))
    z = b(Input("z", DType.F32, (7, 24)))

    def weight(path, *shape):
        return b(Parameter(path, DType.F32, shape, "normal()"))

    def dot(lhs, rhs, batch=((), ()), contract=((), ())):
        return b(DotGeneral(*batch, *contract), lhs, rhs)

    return b, x, z, weight, dot


@pytest.mark.parametrize("target", RUNNABLE)
def test_every_form_equals_the_reference(target):
    b, x, z, weight, dot = draft()
    out = {}
    # Linear: weight [out, in], bias, activation; widths with and without a tail.
    for n in (1, 21, 130):
        y = dot(x, weight(f"w{n}", n, 24), contract=((2,), (1,)))
        bias = b(BroadcastInDim((N, T, n), (2,)), weight(f"b{n}", n))
        out[f"linear{n}"] = b(Gelu("none"), b(Add(), y, bias))
    # Heads straight from weights, scores and values as attention has them, back in place.
    q, k, v = (dot(x, weight(p, 24, 3, 8), contract=((2,), (0,))) for p in "qkv")
    scores = dot(q, k, ((0, 2), (0, 2)), ((3,), (3,)))
    mixed = dot(scores, v, ((0, 1), (0, 2)), ((3,), (1,)))
    out["scores"] = scores
    out["mixed"] = b(Transpose((0, 2, 1, 3)), mixed)
    # Two contracted dims, a static lhs, a batch of weights, no free dims, an outer product.
    out["two"] = dot(q, weight("two", 3, 8, 9), contract=((2, 3), (0, 1)))
    out["left"] = dot(weight("left", 6, 24), z, contract=((1,), (1,)))
    out["batched"] = dot(z, weight("batched", 7, 24, 5), ((0,), (0,)), ((1,), (1,)))
    out["inner"] = dot(z, z, ((0,), (0,)), ((1,), (1,)))
    out["outer"] = b(Relu(), dot(z, z))
    rng = np.random.default_rng(1)
    inputs = {
        "x": rng.standard_normal((3, 11, 24)).astype(np.float32),
        "z": rng.standard_normal((7, 24)).astype(np.float32),
    }
    check(b.build(list(out.items())), inputs, target)


def test_merging_follows_memory():
    assert merge([Axis(3, 20, 0, (0,)), Axis(4, 5, 0, (1,))]) == [Axis(12, 5, 0, (0, 1))]
    assert len(merge([Axis(3, 40, 0, (0,)), Axis(4, 5, 0, (1,))])) == 2
    assert merge([Axis(1, 7, 7, (0,)), Axis(4, 5, 0, (1,))]) == [Axis(4, 5, 0, (0, 1))]
    assert merge([]) == [Axis(1, 0, 0)]


def test_rows_that_do_not_merge_become_a_batch():
    lhs, rhs = TensorType(DType.F32, (N, 24, T)), TensorType(DType.F32, (24, 8))
    product = read_product(DotGeneral((), (), (1,), (0,)), lhs, rhs)
    assert [ax.extent for ax in product.batch] == [N]
    assert (product.m.extent, product.m.lhs, product.k.lhs) == (T, 1, T)
    assert (product.n.extent, product.n.rhs, product.k.rhs) == (8, 1, 8)
