"""E081x: what has no gradient."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0811": CodeInfo(
        "an operation has no gradient",
        """A gradient was asked through an operation that has none: one that a later stage of the compiler made, or a
convolution or sum over windows whose window has a size that only the run decides. The message names it.
`stop_gradient(x)` cuts the way back where the gradient is not meant to pass.
""",
    ),
    "E0812": CodeInfo(
        "`grad` of something that has no gradient",
        """`grad(y, x)` needs a scalar `y`, and floats for both: integers and bool do not change smoothly.

Wrong:

    input x: f32[N, 8]
    output g = grad(x * x, x)

Right:

    input x: f32[N, 8]
    output g = grad(sum(x * x), x)
""",
    ),
}
