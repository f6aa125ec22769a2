"""E02xx: mistakes in shapes, dtypes and dims."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0201": CodeInfo(
        "operation applied to something it cannot take",
        """An operation got operands or attributes that break its rule in a way without a code of its own.
The message says which rule.
""",
    ),
    "E0202": CodeInfo(
        "shapes do not broadcast",
        """Two tensors that are combined element by element need sizes that are equal or 1, counted from the
last dimension. Nothing else is repeated silently.

Wrong:

    input a: f32[N, 64]
    input b: f32[N, 32]
    output y = a + b

Right:

    input a: f32[N, 64]
    input b: f32[N, 1]
    output y = a + b
""",
    ),
    "E0203": CodeInfo(
        "sizes that are multiplied together differ",
        """A product sums over a dimension of both tensors, which must have one size: the last of the left
and the last but one of the right for `@`.

Wrong:

    input x: f32[N, 10]
    param w: f32[20, 10] = normal(std=0.02)
    output y = x @ w

Right:

    input x: f32[N, 10]
    param w: f32[20, 10] = normal(std=0.02)
    output y = x @ transpose(w)
""",
    ),
    "E0204": CodeInfo(
        "layer declared for another input size",
        """`in_features`, `in_channels`, `num_features` and their like are inferred. Given by keyword they are a
check, and this check has failed.

Wrong:

    input x: f32[N, 256]
    output y = x -> Linear(10, in_features=400)

Right:

    input x: f32[N, 256]
    output y = x -> Linear(10)
""",
    ),
    "E0205": CodeInfo(
        "wrong number of dimensions",
        """A layer, block or function needs another number of dimensions than its input has: `Conv2d` takes
`[N, C, H, W]`, `BatchNorm1d` takes `[N, C]` or `[N, C, L]`.

Wrong:

    input x: f32[N, 28, 28]
    output y = x -> Conv2d(6, 5)

Right:

    input x: f32[N, 28, 28]
    output y = unsqueeze(x, 1) -> Conv2d(6, 5)
""",
    ),
    "E0206": CodeInfo(
        "wrong element type",
        """Element types are never converted silently: an operation got integers where it takes floats, two
different types, or the like.

Wrong:

    input a: f32[N]
    input b: i64[N]
    output y = a + b

Right:

    input a: f32[N]
    input b: i64[N]
    output y = a + astype(b, "f32")
""",
    ),
    "E0207": CodeInfo(
        "size or attribute out of range",
        """A dimension is a non-negative integer, a kernel or a stride a positive one, a list of settings has one
entry per axis.

Wrong:

    input x: f32[N, 3 - 5]
    output y = relu(x)

Right:

    input x: f32[N, 5 - 3]
    output y = relu(x)
""",
    ),
    "E0208": CodeInfo(
        "window larger than the input",
        """A kernel or pooling window, with its dilation, does not fit into the padded input.

Wrong:

    input x: f32[N, 3, 4, 4]
    output y = x -> Conv2d(8, 5)

Right:

    input x: f32[N, 3, 4, 4]
    output y = x -> Conv2d(8, 5, padding=2)
""",
    ),
    "E0209": CodeInfo(
        "does not divide",
        """Channels must divide into groups, features into heads, and a dim written as `D / heads` must come out
even.

Wrong:

    input x: f32[N, 6, 8, 8]
    output y = x -> Conv2d(8, 3, groups=4)

Right:

    input x: f32[N, 8, 8, 8]
    output y = x -> Conv2d(8, 3, groups=4)
""",
    ),
    "E0210": CodeInfo(
        "reshape changes the number of elements",
        """The old and the new shape must hold the same number of elements, for every value of the named dims.

Wrong:

    input x: f32[N, 6, 4]
    output y = reshape(x, (N, 20))

Right:

    input x: f32[N, 6, 4]
    output y = reshape(x, (N, -1))
""",
    ),
    "E0211": CodeInfo(
        "no such dimension",
        """A dimension is counted from 0, or from the end with negative numbers, and named once.

Wrong:

    input x: f32[N, 10]
    output y = softmax(x, dim=2)

Right:

    input x: f32[N, 10]
    output y = softmax(x, dim=1)
""",
    ),
    "E0212": CodeInfo(
        "joined tensors differ in another dimension",
        """Tensors that are joined along one dimension agree in all others.

Wrong:

    input a: f32[N, 3, 8, 8]
    input b: f32[N, 3, 4, 4]
    output y = concat((a, b), dim=1)

Right:

    input a: f32[N, 3, 8, 8]
    input b: f32[N, 3, 4, 4]
    output y = concat((a, b -> Upsample(scale_factor=2)), dim=1)
""",
    ),
    "E0213": CodeInfo(
        "index or slice out of range",
        """A subscript or a split leaves the tensor or the list.

Wrong:

    input x: f32[N, 10]
    output y = x[:, 10]

Right:

    input x: f32[N, 10]
    output y = x[:, -1]
""",
    ),
    "E0214": CodeInfo(
        "parameter of the wrong size",
        """A weight, bias or statistic has another size than the channels or features it belongs to.

Wrong:

    input x: f32[N, 10]
    param w: f32[5] = ones()
    param b: f32[5] = zeros()
    output y = layer_norm(x, 10, w, b)

Right:

    input x: f32[N, 10]
    param w: f32[10] = ones()
    param b: f32[10] = zeros()
    output y = layer_norm(x, 10, w, b)
""",
    ),
    "E0215": CodeInfo(
        "malformed einsum equation",
        """One letter per dimension, one term per tensor, an arrow before the result.

Wrong:

    input q: f32[N, 4]
    input k: f32[N, 4]
    output y = einsum("nd->n", q, k)

Right:

    input q: f32[N, 4]
    input k: f32[N, 4]
    output y = einsum("nd,nd->n", q, k)
""",
    ),
    "E0216": CodeInfo(
        "a number is needed that is only known at run time",
        """The shape of a parameter, and most arguments, are fixed when the model is built; a named dim gets its
value when the module runs.

Wrong:

    input x: f32[N, C]
    output y = x -> Linear(10)

Right:

    input x: f32[N, 64]
    output y = x -> Linear(10)

Or fix the dim when compiling: `--dim C=64`.
""",
    ),
    "E0217": CodeInfo(
        "dim bound twice differently",
        """A dim gets its value where it first stands alone in a shape, and must agree wherever it stands again.

Wrong:

    block Add(a: f32[N, D], b: f32[N, D]) {
        return a + b
    }

    model M {
        input x: f32[N, 8]
        input y: f32[N, 9]
        output z = (x, y) -> Add
    }

Right:

    block Add(a: f32[N, D], b: f32[N, D]) {
        return a + b
    }

    model M {
        input x: f32[N, 8]
        input y: f32[N, 8]
        output z = (x, y) -> Add
    }
""",
    ),
    "E0218": CodeInfo(
        "dim cannot be bound",
        """A named dim gets its value from an input where it stands alone; arithmetic alone does not say what it
is. Only such a dim can have a bound, and an input has a fixed number of dimensions.

Wrong:

    input x: f32[N, T + 1]
    output y = relu(x)

Right:

    input x: f32[N, T]
    output y = relu(x)
""",
    ),
    "E0219": CodeInfo(
        "not decided while the graph is built",
        """`if`, loops and slices are decided while the graph is built, and this depends on a named dim, which is
known at run time only. Give the dim a bound, or fix it with `--dim`.

Wrong:

    input x: f32[N, T]
    h = x
    if T > 512 {
        h = relu(x)
    }
    output h

Right:

    input x: f32[N, T <= 512]
    h = x
    if T > 512 {
        h = relu(x)
    }
    output h
""",
    ),
    "E0221": CodeInfo(
        "dim above its bound",
        """A shape with `T <= 512` takes at most 512 there, and what is given is larger, or may be.

Wrong:

    block Positions(x: f32[N, T <= 16]) {
        return relu(x)
    }

    model M {
        input x: f32[N, 32]
        output y = x -> Positions
    }

Right:

    block Positions(x: f32[N, T <= 16]) {
        return relu(x)
    }

    model M {
        input x: f32[N, 16]
        output y = x -> Positions
    }
""",
    ),
}
