"""What random numbers of a training step are named by."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.graph import Value


@dataclass(frozen=True)
class RandomKey:
    """The name of one tensor of random numbers.

    `value` is the step's key, i64[2]: the seed and the number of the step. `stream` numbers the uses within a step.
    A function of the language that takes one gets it from the train block, not from its arguments.
    """

    value: Value
    stream: int

    def part(self, number: int) -> RandomKey:
        """The name of another tensor of the same use: number 1 to 255; 0 is this one. There are below 2^24 uses."""
        return RandomKey(self.value, self.stream + (number << 24))
