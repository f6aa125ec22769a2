"""Activations: elementwise composites with PyTorch's formulas, defaults and argument names.

Each is one formula, and one for its derivative, whose value at a kink is PyTorch's; `decompose` replays the formula as
graph nodes where no kernel takes it whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Expr, OpError
from graphc.ir.types import TensorType
from graphc.ops.elementwise import Arithmetic, Elementwise
from graphc.ops.numerics import working
from graphc.ops.replay import GraphEmitter
from graphc.ops.unary import Convert


class Activation(Elementwise):
    """Base of the activations: floats in, the same type out."""

    family: ClassVar[str] = "activation"
    kind: ClassVar[str] = "float"

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """The formula as graph nodes, in f32 for half-precision operands."""
        type = b.type_of(operands[0])
        wide = working(type.dtype)
        args = [x if wide is type.dtype else b(Convert(wide), x) for x in operands]
        value: Value = self.formula(GraphEmitter(b, type.shape), wide, *args)
        return (value if wide is type.dtype else b(Convert(type.dtype), value),)


def _clamp(e: Arithmetic, dtype: DType, x: Expr, low: float, high: float) -> Expr:
    """x limited to [low, high]; NaN stays NaN."""
    return e.binary("min", e.binary("max", x, e.constant(low, dtype)), e.constant(high, dtype))


def _positive(e: Arithmetic, dtype: DType, x: Expr) -> Expr:
    return e.compare("gt", x, e.constant(0.0, dtype))


def _inside(e: Arithmetic, dtype: DType, cotangent: Expr, x: Expr, low: float, high: float) -> Expr:
    """The cotangent where low < x < high, else 0."""
    zero = e.constant(0.0, dtype)
    above = e.select(e.compare("le", x, e.constant(low, dtype)), zero, cotangent)
    return e.select(e.compare("ge", x, e.constant(high, dtype)), zero, above)


def _elu_back(
    e: Arithmetic, dtype: DType, cotangent: Expr, x: Expr, rise: float, scale: float
) -> Expr:
    """The cotangent times `rise` where x > 0, times `scale` exp(x) elsewhere."""
    positive = _positive(e, dtype, x)
    below = e.unary("exp", e.select(positive, e.constant(0.0, dtype), x))  # without overflow
    low = e.binary("mul", below, e.constant(scale, dtype))
    return e.binary("mul", cotangent, e.select(positive, e.constant(rise, dtype), low))


@dataclass(frozen=True)
class Relu(Activation):
    """max(x, 0); also for integers."""

    name: ClassVar[str] = "relu"
    kind: ClassVar[str] = "number"

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """One maximum."""
        return e.binary("max", args[0], e.constant(0, dtype))

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g where x > 0; 0 at 0."""
        zero = e.constant(0.0, dtype)
        return (e.select(e.compare("le", args[0], zero), zero, cotangent),)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x where x > 0, else negative_slope * x."""

    name: ClassVar[str] = "leaky_relu"
    negative_slope: float = 0.01

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        (x,) = args
        low = e.binary("mul", x, e.constant(self.negative_slope, dtype))
        return e.select(_positive(e, dtype, x), x, low)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g, or negative_slope g where x <= 0."""
        low = e.binary("mul", cotangent, e.constant(self.negative_slope, dtype))
        return (e.select(_positive(e, dtype, args[0]), cotangent, low),)


@dataclass(frozen=True)
class Prelu(Activation):
    """x where x > 0, else slope * x; operands (x, slope), of one shape."""

    name: ClassVar[str] = "prelu"
    arity: ClassVar[int | None] = 2

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        x, slope = args
        return e.select(_positive(e, dtype, x), x, e.binary("mul", x, slope))

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g, or slope g where x <= 0; and x g there."""
        x, slope = args
        positive, zero = _positive(e, dtype, x), e.constant(0.0, dtype)
        back = e.select(positive, cotangent, e.binary("mul", cotangent, slope))
        return back, e.select(positive, zero, e.binary("mul", cotangent, x))


@dataclass(frozen=True)
class Elu(Activation):
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2016)."""

    name: ClassVar[str] = "elu"
    expensive: ClassVar[bool] = True
    alpha: float = 1.0

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        (x,) = args
        low = e.binary("mul", e.unary("expm1", x), e.constant(self.alpha, dtype))
        return e.select(_positive(e, dtype, x), x, low)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g, or g alpha exp(x) where x <= 0."""
        return (_elu_back(e, dtype, cotangent, args[0], 1.0, self.alpha),)


@dataclass(frozen=True)
class Selu(Activation):
    """scale * elu(x, alpha) with the fixed point constants of Klambauer et al. 2017."""

    name: ClassVar[str] = "selu"
    expensive: ClassVar[bool] = True
    alpha: ClassVar[float] = 1.6732632423543772848170429916717
    scale: ClassVar[float] = 1.0507009873554804934193349852946

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        (x,) = args
        low = e.binary("mul", e.unary("expm1", x), e.constant(self.scale * self.alpha, dtype))
        high = e.binary("mul", x, e.constant(self.scale, dtype))
        return e.select(_positive(e, dtype, x), high, low)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g scale, or g scale alpha exp(x) where x <= 0."""
        return (_elu_back(e, dtype, cotangent, args[0], self.scale, self.scale * self.alpha),)


@dataclass(frozen=True)
class Gelu(Activation):
    """x * Phi(x), Phi being the normal distribution's (Hendrycks & Gimpel 2016).

    `approximate="none"` is 0.5 x (1 + erf(x / sqrt 2)); `"tanh"` is 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    """

    name: ClassVar[str] = "gelu"
    expensive: ClassVar[bool] = True
    approximate: str = "none"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The operand's type. Raises OpError E0206, or E0207 for an unknown approximation."""
        if self.approximate not in ("none", "tanh"):
            raise OpError(
                f'gelu: approximate is "none" or "tanh", not "{self.approximate}"', code="E0207"
            )
        return super().infer(*operands)

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        (x,) = args
        if self.approximate == "none":
            inner = e.unary("erf", e.binary("mul", x, e.constant(math.sqrt(0.5), dtype)))
        else:
            square = e.binary("mul", x, x)
            cubic = e.binary("mul", e.binary("mul", square, x), e.constant(0.044715, dtype))
            inner = e.binary("add", x, cubic)
            scaled = e.binary("mul", inner, e.constant(math.sqrt(2 / math.pi), dtype))
            inner = e.unary("tanh", scaled)
        half = e.binary("mul", x, e.constant(0.5, dtype))
        return e.binary("mul", half, e.binary("add", inner, e.constant(1.0, dtype)))

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g (Phi(x) + x phi(x)), phi being the density; the tanh form by the chain rule."""
        (x,) = args
        one, half = e.constant(1.0, dtype), e.constant(0.5, dtype)
        square = e.binary("mul", x, x)
        if self.approximate == "none":
            inner = e.unary("erf", e.binary("mul", x, e.constant(math.sqrt(0.5), dtype)))
            bell = e.unary("exp", e.unary("neg", e.binary("mul", square, half)))
            density = e.binary("mul", bell, e.constant(1 / math.sqrt(2 * math.pi), dtype))
        else:
            scale = e.constant(math.sqrt(2 / math.pi), dtype)
            cubic = e.binary("mul", square, e.constant(0.044715, dtype))
            bent = e.binary("mul", x, e.binary("add", one, cubic))
            inner = e.unary("tanh", e.binary("mul", scale, bent))
            inside = e.binary("add", one, e.binary("mul", square, e.constant(3 * 0.044715, dtype)))
            rest = e.binary("sub", one, e.binary("mul", inner, inner))
            steep = e.binary("mul", rest, e.binary("mul", scale, inside))
            density = e.binary("mul", steep, half)
        below = e.binary("mul", half, e.binary("add", one, inner))
        slope = e.binary("add", below, e.binary("mul", x, density))
        return (e.binary("mul", cotangent, slope),)


@dataclass(frozen=True)
class Silu(Activation):
    """x * sigmoid(x), also called swish (Elfwing et al. 2017)."""

    name: ClassVar[str] = "silu"
    expensive: ClassVar[bool] = True

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        return e.binary("mul", args[0], e.unary("sigmoid", args[0]))

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g s (1 + x (1 - s)), s being the sigmoid."""
        one, s = e.constant(1.0, dtype), e.unary("sigmoid", args[0])
        bent = e.binary("add", one, e.binary("mul", args[0], e.binary("sub", one, s)))
        return (e.binary("mul", cotangent, e.binary("mul", s, bent)),)


@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold."""

    name: ClassVar[str] = "softplus"
    expensive: ClassVar[bool] = True
    beta: float = 1.0
    threshold: float = 20.0

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The operand's type. Raises OpError E0206, or E0207 for beta 0."""
        if self.beta == 0:
            raise OpError("softplus: beta must not be 0", code="E0207")
        return super().infer(*operands)

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        (x,) = args
        beta = e.constant(self.beta, dtype)
        scaled = e.binary("mul", x, beta)
        soft = e.binary("div", e.unary("log1p", e.unary("exp", scaled)), beta)
        large = e.compare("gt", scaled, e.constant(self.threshold, dtype))
        return e.select(large, x, soft)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g sigmoid(beta x), and g where beta x > threshold."""
        scaled = e.binary("mul", args[0], e.constant(self.beta, dtype))
        large = e.compare("gt", scaled, e.constant(self.threshold, dtype))
        soft = e.binary("mul", cotangent, e.unary("sigmoid", scaled))
        return (e.select(large, cotangent, soft),)


@dataclass(frozen=True)
class Hardswish(Activation):
    """x * clamp(x + 3, 0, 6) / 6 (Howard et al. 2019)."""

    name: ClassVar[str] = "hardswish"

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        (x,) = args
        gate = _clamp(e, dtype, e.binary("add", x, e.constant(3.0, dtype)), 0.0, 6.0)
        return e.binary("div", e.binary("mul", x, gate), e.constant(6.0, dtype))

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """0 up to -3, g from 3 on, and g (x / 3 + 1/2) between."""
        (x,) = args
        slope = e.binary("add", e.binary("div", x, e.constant(3.0, dtype)), e.constant(0.5, dtype))
        high = e.compare("ge", x, e.constant(3.0, dtype))
        rising = e.select(high, cotangent, e.binary("mul", cotangent, slope))
        low = e.compare("le", x, e.constant(-3.0, dtype))
        return (e.select(low, e.constant(0.0, dtype), rising),)


@dataclass(frozen=True)
class Hardsigmoid(Activation):
    """clamp(x + 3, 0, 6) / 6."""

    name: ClassVar[str] = "hardsigmoid"

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        gate = _clamp(e, dtype, e.binary("add", args[0], e.constant(3.0, dtype)), 0.0, 6.0)
        return e.binary("div", gate, e.constant(6.0, dtype))

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g / 6 inside of (-3, 3), else 0."""
        sixth = e.binary("div", cotangent, e.constant(6.0, dtype))
        return (_inside(e, dtype, sixth, args[0], -3.0, 3.0),)


@dataclass(frozen=True)
class Hardtanh(Activation):
    """x limited to [min_val, max_val]; ReLU6 is `Hardtanh(0, 6)`."""

    name: ClassVar[str] = "hardtanh"
    min_val: float = -1.0
    max_val: float = 1.0

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The operand's type. Raises OpError E0206, or E0207 for an empty interval."""
        if not self.min_val <= self.max_val:
            raise OpError(
                f"hardtanh: min_val {self.min_val} is above max_val {self.max_val}", code="E0207"
            )
        return super().infer(*operands)

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        return _clamp(e, dtype, args[0], self.min_val, self.max_val)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g inside of (min_val, max_val), else 0."""
        return (_inside(e, dtype, cotangent, args[0], self.min_val, self.max_val),)


@dataclass(frozen=True)
class Mish(Activation):
    """x * tanh(log(1 + exp(x))) (Misra 2019)."""

    name: ClassVar[str] = "mish"
    expensive: ClassVar[bool] = True

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """See the class."""
        (x,) = args
        return e.binary("mul", x, e.unary("tanh", e.unary("log1p", e.unary("exp", x))))

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g (t + x (1 - t^2) sigmoid(x)), t being tanh(softplus(x))."""
        (x,) = args
        one, limit = (
            e.constant(1.0, dtype),
            e.constant(20.0, dtype),
        )  # from 20 on t is 1 to the last bit
        small = e.select(e.compare("gt", x, limit), limit, x)
        t = e.unary("tanh", e.unary("log1p", e.unary("exp", small)))
        rest = e.binary("sub", one, e.binary("mul", t, t))
        bent = e.binary("mul", e.binary("mul", x, rest), e.unary("sigmoid", x))
        return (e.binary("mul", cotangent, e.binary("add", t, bent)),)
