"""E03xx: mistakes in names, labels and what they stand for."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0301": CodeInfo(
        "undefined name",
        """The name is no variable, dim, argument, block, import or built-in name at this place.

Wrong:

    input x: f32[N, 10]
    output y = x -> Linaer(5)

Right:

    input x: f32[N, 10]
    output y = x -> Linear(5)
""",
    ),
    "E0302": CodeInfo(
        "no such attribute",
        """After a dot stands `shape` or `dtype` of a tensor, or another use of a shared layer, such as `attend`.

Wrong:

    input x: f32[N, 10]
    output y = reshape(x, x.size)

Right:

    input x: f32[N, 10]
    output y = reshape(x, x.shape)
""",
    ),
    "E0303": CodeInfo(
        "unused name",
        """A warning: something gets a value, is an argument or is imported, and is never used. A name that begins
with `_` says that this is meant.

Wrong:

    input x: f32[N, 10]
    h = relu(x)
    output y = tanh(x)

Right:

    input x: f32[N, 10]
    h = relu(x)
    output y = tanh(h)
""",
    ),
    "E0304": CodeInfo(
        "name hides another one",
        """A warning: a variable has the name of a layer, a function or a block, which cannot be reached any more.

Wrong:

    input x: f32[N, 10]
    sum = x + 1
    output y = sum

Right:

    input x: f32[N, 10]
    total = x + 1
    output y = total
""",
    ),
    "E0305": CodeInfo(
        "defined twice",
        """Blocks and models of a file, inputs and outputs of a model have names of their own.

Wrong:

    input x: f32[N, 10]
    input x: f32[N, 20]
    output y = relu(x)

Right:

    input x: f32[N, 10]
    input z: f32[N, 10]
    output y = relu(x + z)
""",
    ),
    "E0306": CodeInfo(
        "label is taken",
        """A label is the place of a layer's parameters, so no two layers of a block have the same.

Wrong:

    input x: f32[N, 10]
    h = x
    for i in range(3) {
        h = h -> fc: Linear(10)
    }
    output h

Right:

    input x: f32[N, 10]
    h = x
    for i in range(3) {
        h = h -> fc.{i}: Linear(10)
    }
    output h
""",
    ),
    "E0307": CodeInfo(
        "dim assigned",
        """A dim gets its value from the shapes it stands in and cannot get another one.

Wrong:

    input x: f32[N, T]
    T = 5
    output y = x + T

Right:

    input x: f32[N, T]
    steps = 5
    output y = x + steps
""",
    ),
    "E0308": CodeInfo(
        "not a layer and not a function",
        """After an arrow stands a layer, a block or a function.

Wrong:

    input x: f32[N, 10]
    width = 5
    output y = x -> width

Right:

    input x: f32[N, 10]
    width = 5
    output y = x -> Linear(width)
""",
    ),
    "E0309": CodeInfo(
        "no such model",
        """The file declares no model, several of which none was named, or none of the name asked for.

Wrong:

    block Twice(x: f32[N]) {
        return x + x
    }

Right:

    block Twice(x: f32[N]) {
        return x + x
    }

    model M {
        input x: f32[N]
        output y = x -> Twice
    }
""",
    ),
    "E0310": CodeInfo(
        "layer called like a function",
        """A layer gets its arguments in parentheses and its input by an arrow.

Wrong:

    input x: f32[N, 10]
    output y = ReLU(x)

Right:

    input x: f32[N, 10]
    output y = x -> ReLU
""",
    ),
    "E0311": CodeInfo(
        "two parameters at one place",
        """Two layers put a parameter at the same path, for example `a.b: Linear` beside a block labelled `a` with a
layer `b` inside.

Wrong:

    block Inner(x: f32[N, D]) {
        return x -> b: Linear(D)
    }

    model M {
        input x: f32[N, 10]
        output y = x -> a: Inner -> a.b: Linear(10)
    }

Right:

    block Inner(x: f32[N, D]) {
        return x -> b: Linear(D)
    }

    model M {
        input x: f32[N, 10]
        output y = x -> a: Inner -> c: Linear(10)
    }
""",
    ),
    "E0312": CodeInfo(
        "shared layer labelled",
        """A shared layer has its place where it is declared; a use of it has no label.

Wrong:

    input x: f32[N, 10]
    shared fc: Linear(10)
    output y = x -> first: fc -> second: fc

Right:

    input x: f32[N, 10]
    shared fc: Linear(10)
    output y = x -> fc -> fc
""",
    ),
    "E0313": CodeInfo(
        "shared layer used with inputs of another size",
        """One set of weights fits one size of inputs.

Wrong:

    input x: f32[N, 10]
    shared fc: Linear(20)
    output y = x -> fc -> fc

Right:

    input x: f32[N, 10]
    shared fc: Linear(10)
    output y = x -> fc -> fc
""",
    ),
    "E0314": CodeInfo(
        "malformed label",
        """A label is made of words and integers, with dots between its steps.

Wrong:

    input x: f32[N, 10]
    output y = x -> fc{0.5}: Linear(10)

Right:

    input x: f32[N, 10]
    output y = x -> fc{5}: Linear(10)
""",
    ),
}
