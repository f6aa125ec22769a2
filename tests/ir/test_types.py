"""Element types, tensor types and literals."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.literal import Literal
from graphc.ir.types import TensorType

N = Dim.symbol("N")


@pytest.mark.parametrize("dtype", list(DType))
def test_numpy_and_back(dtype: DType) -> None:
    assert DType.from_numpy(dtype.numpy) is dtype
    assert dtype.bytes == np.zeros((), dtype.numpy).nbytes
    assert dtype.is_float + dtype.is_int + (dtype is DType.BOOL) == 1


def test_dtypes_that_graphs_cannot_hold() -> None:
    with pytest.raises(KeyError):
        DType.from_numpy(np.complex64)


def test_tensor_type() -> None:
    t = TensorType(DType.F16, (N, 3, 2 * N))
    assert str(t) == "f16[N, 3, 2*N]"
    assert t.rank == 3
    assert t.size == 6 * N * N
    assert t.nbytes == 12 * N * N
    assert not t.is_static
    assert t.substitute({"N": 2}) == TensorType(DType.F16, (2, 3, 4))
    assert t.concrete({"N": 5}) == (5, 3, 10)
    assert t.with_shape((1,)).with_dtype(DType.I8) == TensorType(DType.I8, (1,))
    with pytest.raises(KeyError):
        t.concrete({})


@pytest.mark.parametrize("dtype", list(DType))
def test_literal_keeps_arrays(dtype: DType) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype.numpy)
    literal = Literal.of(array)
    assert (literal.dtype, literal.shape) == (dtype, (2, 3))
    np.testing.assert_array_equal(literal.array, array)
    assert not literal.array.flags.writeable
    assert literal == Literal.of(np.asfortranarray(array))
    assert hash(literal) == hash(Literal.of(array))


def test_literal_compares_bits() -> None:
    nan = Literal.of(np.array(np.nan, np.float32))
    assert nan == Literal.of(np.array(np.nan, np.float32))
    assert Literal.of(np.array(0.0)) != Literal.of(np.array(-0.0))
    assert Literal.of(np.array([1], ">i4")) == Literal.of(np.array([1], "<i4"))


def test_splat() -> None:
    assert Literal.of(np.ones((2, 2))).is_splat
    assert not Literal.of(np.array([0.0, -0.0])).is_splat
    assert not Literal.of(np.zeros((0,))).is_splat


def test_literal_data_has_the_right_size() -> None:
    with pytest.raises(ValueError, match="takes 8 bytes"):
        Literal(DType.F32, (2,), b"1234")
