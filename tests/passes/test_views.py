"""Shape algebra of transposes and reshapes against NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphc.ir.dim import Dim
from graphc.passes.views import (
    Group,
    compose,
    inverse,
    moves_nothing,
    reshape_after,
    reshape_before,
    reshape_groups,
)

N, H = Dim.symbol("N"), Dim.symbol("H")


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes with the same number of elements."""

    def split(factors: list[int]) -> tuple[int, ...]:
        shape, size = [], 1
        for f in factors:
            size *= f
            if draw(st.booleans()):
                shape.append(size)
                size = 1
        return (*shape, size)

    factors = draw(st.lists(st.sampled_from([1, 2, 3]), max_size=5))
    return split(factors), split(factors)


@given(reshapes(), st.data())
def test_reshape_after_a_transpose(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    old, new = shapes
    permutation = tuple(data.draw(st.permutations(range(len(old)))))
    shape = tuple(old[p] for p in inverse(permutation))
    found = reshape_after(shape, permutation, new)
    if found is not None:
        x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        expected = x.transpose(permutation).reshape(new)
        np.testing.assert_array_equal(x.reshape(found[0]).transpose(found[1]), expected)


@given(reshapes(), st.data())
def test_reshape_before_a_transpose(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    old, new = shapes
    permutation = tuple(data.draw(st.permutations(range(len(new)))))
    found = reshape_before(old, new, permutation)
    if found is not None:
        x = np.arange(np.prod(old, dtype=int)).reshape(old)
        expected = x.reshape(new).transpose(permutation)
        np.testing.assert_array_equal(x.transpose(found[0]).reshape(found[1]), expected)


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_permutations(p: list[int], q: list[int]) -> None:
    x = np.arange(24).reshape(1, 2, 3, 4)
    np.testing.assert_array_equal(x.transpose(p).transpose(q), x.transpose(compose(tuple(p), q)))
    np.testing.assert_array_equal(x.transpose(p).transpose(inverse(p)), x)
    still = np.array_equal(x.transpose(p).reshape(-1), x.reshape(-1))
    assert moves_nothing(x.shape, tuple(p)) == still


def test_groups() -> None:
    assert reshape_groups((N, 16, 5, 5), (N, 400)) == (Group((0,), (0,)), Group((1, 2, 3), (1,)))
    assert reshape_groups((N, 8, H, H), (N, 2, 4, H * H)) == (
        Group((0,), (0,)),
        Group((1,), (1, 2)),
        Group((2, 3), (3,)),
    )
    assert reshape_groups((2, 0), (0, 3)) is None


def test_channels_last_flatten() -> None:
    """[N, H, W, C] seen as [N, C, H, W] merges H and W, but not C and H."""
    to_first = (0, 3, 1, 2)
    assert reshape_after((N, 4, 5, 8), to_first, (N, 8, 20)) == ((N, 20, 8), (0, 2, 1))
    assert reshape_after((N, 4, 5, 8), to_first, (N, 160)) is None
    assert reshape_after((N, 1, 1, 8), to_first, (N, 8)) == ((N, 8), (0, 1))
