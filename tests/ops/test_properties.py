"""Properties that every op in `OPS` has, on random applications."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import ops as o
from graphc.ir.dim import Dim, DimLike, evaluate
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ir.interpret import run
from graphc.ir.op import Array, OpError, Pattern
from graphc.ir.types import TensorType
from graphc.ops.elementwise import Elementwise
from tests.ops.samples import SAMPLES
from tests.ops.scalar_emitter import computed

NAMES = sorted(SAMPLES)
COMPUTED = [n for n in NAMES if o.OPS[n].compute is not o.ConvGeneral.__mro__[1].compute]
DECOMPOSED = [n for n in NAMES if o.OPS[n].decompose is not o.ConvGeneral.__mro__[1].decompose]
TRANSPOSED = [n for n in NAMES if o.OPS[n].transposed is not o.ConvGeneral.__mro__[1].transposed]

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=15, deadline=None, derandomize=True)


def types_of(arrays: list[Array]) -> list[TensorType]:
    return [TensorType(DType.from_numpy(x.dtype), x.shape) for x in arrays]


def close(actual: Array, expected: Array) -> None:
    """Equal shapes and element types, and values up to the rounding of a few operations."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    eps = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}
    tolerance = eps.get(expected.dtype.name, 0)
    a, b = (x.astype(np.float64) if tolerance else x for x in (actual, expected))
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_every_op_has_a_sample() -> None:
    assert set(o.OPS) - set(SAMPLES) == {"input", "parameter"}


def test_only_composites_sources_and_opaque_ops_have_no_computation() -> None:
    missing = {n for n in NAMES if n not in COMPUTED}
    patterns = {o.OPS[n].pattern for n in missing}
    assert patterns <= {Pattern.COMPOSITE, Pattern.OPAQUE, Pattern.REGION}


@pytest.mark.parametrize("name", NAMES)
def test_evaluate_has_the_inferred_type_and_owns_its_memory(name: str) -> None:
    @quick
    @given(seeds)
    def check(seed: int) -> None:
        op, arrays = SAMPLES[name](np.random.default_rng(seed))
        types = op.infer(*types_of(arrays))
        before = [x.copy() for x in arrays]
        results = op.evaluate(*arrays)
        assert len(types) == len(results)
        for type, x in zip(types, results, strict=True):
            assert (x.dtype, x.shape) == (type.dtype.numpy, type.shape)
            assert not any(x.size and np.shares_memory(x, a) for a in arrays)
        for x, y in zip(arrays, before, strict=True):
            assert x.tobytes() == y.tobytes()
        cost = op.flops(types_of(arrays), types)
        assert isinstance(cost, int)
        assert cost >= 0
        assert hash(op) == hash(op.substitute({}))

    check()


@pytest.mark.parametrize("name", COMPUTED)
def test_compute_at_every_index_is_evaluate(name: str) -> None:
    @settings(quick, max_examples=12)
    @given(seeds)
    def check(seed: int) -> None:
        op, arrays = SAMPLES[name](np.random.default_rng(seed))
        (expected,) = op.evaluate(*arrays)
        if expected.size <= 200:
            close(computed(op, arrays), expected)

    check()


@pytest.mark.parametrize("name", DECOMPOSED)
def test_decomposition_is_evaluate(name: str) -> None:
    @quick
    @given(seeds)
    def check(seed: int) -> None:
        op, arrays = SAMPLES[name](np.random.default_rng(seed))
        b = GraphBuilder("g")
        inputs = [b(o.Input(str(i), t.dtype, t.shape)) for i, t in enumerate(types_of(arrays))]
        parts = op.decompose(b, *inputs)
        assert parts is not None
        assert op.name not in {n.op.name for n in b.nodes}
        graph = b.build([("y", parts[0])])
        found = run(graph, dict(zip(inputs, arrays, strict=True)), parts)
        close(found[parts[0]], op.evaluate(*arrays)[0])

    check()


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposes_move_behind_the_op(name: str) -> None:
    moved = 0

    @quick
    @given(seeds)
    def check(seed: int) -> None:
        nonlocal moved
        rng = np.random.default_rng(seed)
        op, arrays = SAMPLES[name](rng)
        rank = arrays[0].ndim
        vectors_stay = op.pattern is Pattern.COMPOSITE or op.spatial
        plain = [*range(rank)]
        to_last, to_first = [0, *plain[2:], 1], [0, *plain[-1:], *plain[1:-1]]
        for p in (rng.permutation(rank).tolist(), to_last, to_first, plain):
            if sorted(p) != plain:
                continue
            result = op.transposed(tuple(p))
            if result is None:
                continue
            moved += 1
            other, q = result
            sources = [
                x if vectors_stay and i else np.array(x.transpose(inverse(p)), order="C")
                for i, x in enumerate(arrays)
            ]
            # op(transpose(a, p)) == transpose(other(a), q) with transpose(a, p) being the sample
            (expected,) = op.evaluate(*arrays)
            (actual,) = other.evaluate(*sources)
            close(actual.transpose(q), expected)

    check()
    assert moved or name == "index_add"


def inverse(p: list[int]) -> list[int]:
    return np.argsort(p).tolist()


@pytest.mark.parametrize("name", sorted(n for n in NAMES if issubclass(o.OPS[n], Elementwise)))
def test_elementwise_ops_refuse_shapes_that_differ(name: str) -> None:
    cls = o.OPS[name]
    assert issubclass(cls, Elementwise)
    if cls.arity == 1:
        return
    op, arrays = SAMPLES[name](np.random.default_rng(1))
    types = [TensorType(t.dtype, (Dim.symbol("N"), 3)) for t in types_of(arrays)]
    assert op.infer(*types)[0].shape == types[0].shape
    with pytest.raises(OpError, match=r"\[N, 3\].*\[N, 4\]") as caught:
        op.infer(*types[:-1], types[-1].with_shape((Dim.symbol("N"), 4)))
    assert (caught.value.code, caught.value.operand) == ("E0202", cls.arity - 1)


@pytest.mark.parametrize(
    "name",
    [
        "conv_general",
        "max_pool",
        "avg_pool",
        "window_sum",
        "softmax",
        "reduce_sum",
        "slice",
        "concatenate",
        "dot_general",
        "layer_norm",
        "group_norm",
        "pad",
        "resize",
    ],
)
def test_symbolic_shape_rules_agree_with_concrete_ones(name: str) -> None:
    """Any operand dimension that may be named is: the rule then gives the concrete result after substitution."""

    @quick
    @given(seeds)
    def check(seed: int) -> None:
        op, arrays = SAMPLES[name](np.random.default_rng(seed))
        types = types_of(arrays)
        (expected,) = op.infer(*types)
        x = types[0]
        for axes in itertools.islice(itertools.product((False, True), repeat=x.rank), 1, None):
            env = {f"D{i}": n for i, n in enumerate(x.shape)}
            shape: tuple[DimLike, ...] = tuple(
                Dim.symbol(f"D{i}") if named else n
                for i, (n, named) in enumerate(zip(x.shape, axes, strict=True))
            )
            try:
                (symbolic,) = op.infer(x.with_shape(shape), *types[1:])
            except OpError:
                continue  # the dimension is tied to an operand that stayed concrete
            assert tuple(evaluate(d, env) for d in symbolic.shape) == expected.shape

    check()
