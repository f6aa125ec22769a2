"""E04xx: mistakes in the arguments of layers, blocks, functions and models."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0401": CodeInfo(
        "unknown argument",
        """The layer, block or function has no argument of this name. Arguments have PyTorch's names.

Wrong:

    input x: f32[N, 3, 8, 8]
    output y = x -> Conv2d(6, 3, pading=1)

Right:

    input x: f32[N, 3, 8, 8]
    output y = x -> Conv2d(6, 3, padding=1)
""",
    ),
    "E0402": CodeInfo(
        "missing argument",
        """An argument without a default has to be given.

Wrong:

    input x: f32[N, 3, 8, 8]
    output y = x -> Conv2d(6)

Right:

    input x: f32[N, 3, 8, 8]
    output y = x -> Conv2d(6, 3)
""",
    ),
    "E0403": CodeInfo(
        "too many arguments",
        """More arguments by position than the layer, block or function has.

Wrong:

    input x: f32[N, 10]
    output y = relu(x, 1)

Right:

    input x: f32[N, 10]
    output y = relu(x)
""",
    ),
    "E0404": CodeInfo(
        "argument of the wrong kind",
        """A number where a tensor is needed, a string where a number is, and so on. `true` is no number, and 2.0 no
integer.

Wrong:

    input x: f32[N, 10]
    output y = x -> Linear(5.0)

Right:

    input x: f32[N, 10]
    output y = x -> Linear(5)
""",
    ),
    "E0405": CodeInfo(
        "argument out of range",
        """The value is of the right kind, but not one the layer or function can work with.

Wrong:

    input x: f32[N, 10]
    output y = x -> GELU("tan")

Right:

    input x: f32[N, 10]
    output y = x -> GELU("tanh")
""",
    ),
    "E0406": CodeInfo(
        "argument given twice",
        """Once by position, or by the value of the chain, and once by name.

Wrong:

    input x: f32[N, 10]
    output y = x -> Linear(5, out_features=5)

Right:

    input x: f32[N, 10]
    output y = x -> Linear(out_features=5)
""",
    ),
    "E0407": CodeInfo(
        "the model has no such argument",
        """`--set name=value` and `graphc.load(..., name=value)` give values to the arguments in the model's head:

    model LeNet(classes: int = 10) { ... }

    graphc compile lenet.nn --set classes=26
""",
    ),
    "E0408": CodeInfo(
        "model argument of the wrong kind",
        """The value given with `--set` is not of the kind that the model declares: `int`, `float`, `bool`, `str`
or `list`.

    wrong:  --set classes=many
    right:  --set classes=10
""",
    ),
    "E0409": CodeInfo(
        "wrong number of inputs",
        """A chain feeds one value, or several as `(a, b) -> Block`, and the layer or block takes another number.

Wrong:

    input x: f32[N, 10]
    output y = (x, x) -> Linear(5)

Right:

    input x: f32[N, 10]
    output y = x -> Linear(5)
""",
    ),
}
