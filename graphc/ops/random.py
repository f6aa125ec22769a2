"""Random numbers: a counter-based generator, so that a number depends on its name only.

Philox-4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011) turns a 128-bit counter
and a 64-bit key into four 32-bit words that pass all statistical tests. Nothing is carried from one number to the next:
any thread computes any element, in any order, and a backward pass can compute again what the forward pass saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape
from graphc.ir.dtype import DType
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read
from graphc.ir.types import TensorType
from graphc.ops.errors import show

ROUNDS = 10
"""Rounds of the generator."""
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1: what a round adds to the key
_LOW = 0xFFFFFFFF
MAX_STREAM = 1 << 32
"""Streams of one key are numbered below this."""
_MAX_ELEMENTS = 1 << 34  # what four words for each 32-bit counter make

Word = Any


def philox_round(
    counter: Sequence[Word], key: tuple[Word, Word], number: Callable[[int], Word]
) -> tuple[Word, Word, Word, Word]:
    """One of the rounds: the next counter; `number` makes a constant.

    A word is an unsigned 64-bit integer (an array, a vector expression) of whose bits the lower 32 count; in results
    the others are anything, in the key they are 0.
    """
    low, half = number(_LOW), number(32)
    one = (counter[0] & low) * number(_MULTIPLIERS[0])
    two = (counter[2] & low) * number(_MULTIPLIERS[1])
    return (two >> half) ^ counter[1] ^ key[0], two, (one >> half) ^ counter[3] ^ key[1], one


def next_key(key: tuple[Word, Word], number: Callable[[int], Word]) -> tuple[Word, Word]:
    """The key of the round after the one with `key`."""
    low = number(_LOW)
    return (key[0] + number(_WEYL[0])) & low, (key[1] + number(_WEYL[1])) & low


def philox(
    counter: Sequence[Word], key: tuple[Word, Word], number: Callable[[int], Word] = np.uint64
) -> tuple[Word, ...]:
    """Four random words from the four of a counter and the two of a key: all rounds. See `philox_round`."""
    for _ in range(ROUNDS):
        counter, key = philox_round(counter, key, number), next_key(key, number)
    return tuple(counter)


def counter_words(block: Word, stream: Word, step: tuple[Word, Word]) -> tuple[Word, ...]:
    """The counter of four successive elements: their number, then the stream, then the two halves of the key's step."""
    return block, stream, *step


@dataclass(frozen=True)
class RandomBits(Op):
    """32 random bits for every element, as i32; the operand is the key, i64[2] (seed, step).

    Element i (in row-major order) is word `i % 4` of Philox-4x32-10 with key `seed` and counter (`i // 4`, `stream`,
    `step`): it depends on the key, on `stream` and on i alone. Different streams of one key are independent of each
    other, as different steps and seeds are. There is no gradient, since integers have none.
    """

    name: ClassVar[str] = "random_bits"
    pattern: ClassVar[Pattern] = Pattern.SOURCE
    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "source"
    expensive: ClassVar[bool] = True
    stream: DimLike  # a dim only in kernels, which share code whatever their streams are
    shape: Shape

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """i32 of the shape. Raises OpError E0206 for another key than i64[2], E0207 for bad attributes."""
        (key,) = operands
        if key != TensorType(DType.I64, (2,)):
            raise OpError(
                f"random_bits takes a key of type i64[2] and got {key}",
                operand=0,
                code="E0206",
                help="a key is two integers: the seed, and a number that changes with every step",
            )
        if isinstance(self.stream, int) and not 0 <= self.stream < MAX_STREAM:
            raise OpError(f"random_bits has no stream {self.stream}", code="E0207")
        result = TensorType(DType.I32, self.shape)
        if any(isinstance(d, int) and d < 0 for d in self.shape):
            raise OpError(
                f"random_bits: shape {show(self.shape)} has a negative dimension", code="E0207"
            )
        if isinstance(result.size, int) and result.size > _MAX_ELEMENTS:
            raise OpError(
                f"random_bits: {show(self.shape)} has more than 2^34 elements, after which they repeat",
                code="E0207",
            )
        return (result,)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The generator on arrays, four elements a time."""
        shape = tuple(int(d) for d in self.shape if isinstance(d, int))
        size = int(np.prod(shape, dtype=np.int64))
        blocks = np.arange(-(-size // 4), dtype=np.uint64)
        assert isinstance(self.stream, int), "kernels are not evaluated"
        (seed, step), half = operands[0].view(np.uint64), np.uint64(32)
        low = np.uint64(_LOW)
        words = philox(
            counter_words(blocks, np.uint64(self.stream), (step & low, step >> half)),
            (seed & low, seed >> half),
        )
        bits = np.stack([(w & low).astype(np.uint32) for w in words], -1).reshape(-1)[:size]
        return (bits.view(np.int32).reshape(shape).copy(),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The emitter's generator at the element's row-major position."""
        position: Expr = 0
        for i, size in zip(index, self.shape, strict=True):
            position = position * e.dim(size) + i
        return e.random_bits((read(0, (0,)), read(0, (1,))), self.stream, position)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Two products, two shifts and four exclusive ors a round, for four elements."""
        return results[0].size * (ROUNDS * 8 // 4)
