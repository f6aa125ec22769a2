"""Labels of which an image has two: what `mixup` and `cutmix` make of class numbers."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Iota, arith


@dataclass(frozen=True)
class Mixed:
    """Two classes for each image of a batch.

    How many classes there are is known where they meet the scores, so that no one has to say it: the cross entropy
    makes probabilities of them there.

    Attributes:
        label: the class with the larger share, which a metric compares with.
        first, second: both classes, integers [N].
        share: how much of the first there is, f32 [N].
    """

    label: Value
    first: Value
    second: Value
    share: Value

    @staticmethod
    def of(b: GraphBuilder, first: Value, second: Value, share: Value) -> Mixed:
        """The two classes and the share of the first."""
        label = arith.select(b, arith.compare(b, "ge", share, 0.5), first, second)
        return Mixed(label, first, second, share)

    def probabilities(self, b: GraphBuilder, classes: DimLike, dtype: DType) -> Value:
        """What each class has, [N, classes]. A number that is no class has nothing."""
        (n,) = b.type_of(self.first).shape
        shape = (n, classes)
        number = b(Iota(DType.I64, shape, 1))
        share = arith.convert(b, self.share, dtype)

        def part(label: Value, weight: Value) -> Value:
            wide = arith.as_spread(b, arith.convert(b, label, DType.I64), shape, (0,))
            here = arith.compare(b, "eq", number, wide)
            return arith.select(b, here, arith.as_spread(b, weight, shape, (0,)), 0.0)

        rest = arith.subtract(b, 1.0, share)
        return arith.add(b, part(self.first, share), part(self.second, rest))
