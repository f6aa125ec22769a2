"""The generator against its published test vectors, and what a random element depends on."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.op import OpError
from graphc.ir.types import TensorType
from graphc.ops import RandomBits
from graphc.ops.random import philox
from tests.ops.scalar_emitter import ScalarEmitter

KEY = TensorType(DType.I64, (2,))

# Counter, key and result of philox4x32-10 in the kat_vectors of Random123, the authors' implementation.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def i64(low: int, high: int) -> int:
    """A signed integer of two unsigned words."""
    return int(np.uint64(high << 32 | low).view(np.int64))


def bits(key: tuple[int, int], stream: int, *shape: int) -> np.ndarray:
    return RandomBits(stream, shape).evaluate(np.array(key, np.int64))[0]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter: str, key: str, result: str) -> None:
    found = philox(words(counter), tuple(words(key)), int)
    assert [w % 2**32 for w in found] == words(result)
    many = philox([np.full(3, w, np.uint64) for w in words(counter)], np.uint64(words(key)))
    for array, word in zip(many, words(result), strict=True):
        assert (array & np.uint64(0xFFFFFFFF) == word).all()


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_an_element_is_a_word_of_its_block(counter: str, key: str, result: str) -> None:
    """Counter words are the block, the stream and the step; the key is the seed."""
    block, stream, *step = words(counter)
    pair = i64(*words(key)), i64(*step)
    for word, expected in enumerate(words(result)):
        found = ScalarEmitter().random_bits(pair, stream, 4 * block + word)
        assert found == np.uint32(expected).view(np.int32)
    if block == 0:
        assert bits(pair, stream, 4).view(np.uint32).tolist() == words(result)


def test_elements_depend_on_key_stream_and_position_only() -> None:
    one = bits((7, 8), 3, 60)
    assert np.array_equal(bits((7, 8), 3, 3, 4, 5), one.reshape(3, 4, 5))
    assert np.array_equal(bits((7, 8), 3, 1000)[:60], one)
    for other in (bits((6, 8), 3, 60), bits((7, 9), 3, 60), bits((7, 8), 4, 60)):
        assert (other != one).all()
    assert bits((7, 8), 3).shape == ()
    assert bits((7, 8), 3) == one[0]
    assert bits((7, 8), 3, 0, 2).shape == (0, 2)


def test_all_bits_of_a_key_count() -> None:
    base = bits((1, 1), 0, 4)
    for place in (0, 31, 32, 62, 63):
        flip = int(np.uint64(1 << place).view(np.int64))
        assert (bits((1 ^ flip, 1), 0, 4) != base).any()
        assert (bits((1, 1 ^ flip), 0, 4) != base).any()


def test_bits_are_even() -> None:
    """Every bit is 1 half of the time, and independent of its neighbour: within 5 standard deviations."""
    x = bits((2026, 1), 0, 1 << 16).view(np.uint32)
    ones = np.unpackbits(x.view(np.uint8).reshape(-1, 4), axis=1).astype(np.float64)
    assert np.abs(ones.mean(0) - 0.5).max() < 5 * 0.5 / 256
    together = (ones[1:] == ones[:-1]).mean(0)
    assert np.abs(together - 0.5).max() < 5 * 0.5 / 256


def test_what_is_refused() -> None:
    for dtype, shape in ((DType.I32, (2,)), (DType.I64, (3,)), (DType.I64, ())):
        key = TensorType(dtype, shape)
        with pytest.raises(OpError, match=r"takes a key of type i64\[2\]"):
            RandomBits(0, (3,)).infer(key)
    for op in (RandomBits(-1, (3,)), RandomBits(2**32, (3,)), RandomBits(0, (3, -1))):
        with pytest.raises(OpError):
            op.infer(KEY)
    with pytest.raises(OpError, match="more than 2"):
        RandomBits(0, (2**18, 2**18)).infer(KEY)
    n = Dim.symbol("N")
    assert RandomBits(0, (n, 3)).infer(KEY) == (TensorType(DType.I32, (n, 3)),)
