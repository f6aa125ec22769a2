"""E05xx: blocks, loops, limits, imports, and values while the graph is built."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

CODES: dict[str, CodeInfo] = {
    "E0501": CodeInfo(
        "blocks nested too deeply",
        """Blocks are expanded inside of blocks to a limited depth. A block that uses itself needs an argument that
ends the recursion.

Wrong:

    block Deeper(x: f32[N]) {
        return x -> Deeper
    }

    model M {
        input x: f32[N]
        output y = x -> Deeper
    }

Right:

    block Deeper(x: f32[N], n: int) {
        y = x
        if n > 0 {
            y = x -> Deeper(n - 1)
        }
        return y
    }

    model M {
        input x: f32[N]
        output y = x -> Deeper(3)
    }
""",
    ),
    "E0502": CodeInfo(
        "loop or list too long",
        """`for` is unrolled while the graph is built, and lists are held in memory; both have a limit.

Wrong:

    input x: f32[N]
    h = x
    for i in range(1_000_000_000) {
        h = h
    }
    output h

Right:

    input x: f32[N]
    h = x
    for i in range(10) {
        h = h + i
    }
    output h
""",
    ),
    "E0503": CodeInfo(
        "model too big",
        """The graph has too many nodes, building it takes too many steps, or it imports too many files. The limits
are ten times what the largest known models need; look for a block that is expanded more often than meant.
""",
    ),
    "E0504": CodeInfo(
        "tensor too big",
        """A tensor has more than 2 ** 40 elements or 32 dimensions, or all parameters more than 2 ** 36.

Wrong:

    input x: f32[N]
    output y = zeros([1_048_576, 1_048_576, 1_048_576])
    output z = x

Right:

    input x: f32[N]
    output y = zeros([1_024, 1_024])
    output z = x
""",
    ),
    "E0505": CodeInfo(
        "imported file missing",
        """There is no such file, relative to the importing one, or no such file in the library; or it cannot be read.

    wrong:  from "block.nn" import Bottleneck
    right:  from "blocks.nn" import Bottleneck
""",
    ),
    "E0506": CodeInfo(
        "import leaves the project",
        """Imports name files in the model's folder or below it, with `/` between folders. Nothing else is read.

    wrong:  from "../../secrets.nn" import A
    right:  from "blocks/residual.nn" import A
""",
    ),
    "E0507": CodeInfo(
        "import cycle",
        """Two files import each other, directly or through others. Move what both need into a third one.
""",
    ),
    "E0508": CodeInfo(
        "imported name missing",
        """The file does not define a block of this name. What a file imports itself is not handed on.

Wrong:

    from nn.transformer import EncodeLayer

    model M {
        input x: f32[N, T, 8]
        output y = x -> EncodeLayer(2, 16)
    }

Right:

    from nn.transformer import EncoderLayer

    model M {
        input x: f32[N, T, 8]
        output y = x -> EncoderLayer(2, 16)
    }
""",
    ),
    "E0509": CodeInfo(
        "no such dim to fix",
        """`--dim N=8` fixes a named dim of the model's inputs, and the model has none of this name.
""",
    ),
    "E0510": CodeInfo(
        "dim fixed outside of its bounds",
        """A dim declared as `T <= 512` cannot be fixed to more, and no dim to less than 1.
""",
    ),
    "E0511": CodeInfo(
        "nothing is returned",
        """A block ends with `return`, on every path through it; a model has at least one `output`.

Wrong:

    input x: f32[N]
    h = relu(x)

Right:

    input x: f32[N]
    h = relu(x)
    output h
""",
    ),
    "E0512": CodeInfo(
        "operator does not work on these values",
        """Operators combine numbers with numbers and tensors, lists with lists, strings with strings.

Wrong:

    input x: f32[N]
    output y = x + "1"

Right:

    input x: f32[N]
    output y = x + 1
""",
    ),
    "E0513": CodeInfo(
        "arithmetic without a result",
        """A division by zero, a root of a negative number, an integer that 64 bits cannot hold, or a dimension whose
formula has grown out of hand.

Wrong:

    input x: f32[N]
    output y = x * (1 / 0)

Right:

    input x: f32[N]
    output y = x * (1 / 2)
""",
    ),
    "E0515": CodeInfo(
        "statement in the wrong place",
        """`input` and `output` belong into models, `return` into blocks. The tensors of a model are declared with
`input` in its body, those of a block in its head.

Wrong:

    input x: f32[N]
    return relu(x)

Right:

    input x: f32[N]
    output y = relu(x)
""",
    ),
    "E0516": CodeInfo(
        "condition is not true or false",
        """`if`, `assert`, `and`, `or` and `not` take comparisons of values that are known while the graph is built. The
elements of a tensor are not; `where(condition, a, b)` chooses among those.

Wrong:

    input x: f32[N]
    output y = x if x > 0 else -x

Right:

    input x: f32[N]
    output y = where(x > 0, x, -x)
""",
    ),
    "E0518": CodeInfo(
        "wrong number of values",
        """As many names as values stand on the two sides of `=`.

Wrong:

    input x: f32[N, 10]
    a, b, c = chunk(x, 2, dim=1)
    output y = a + b + c

Right:

    input x: f32[N, 10]
    a, b = chunk(x, 2, dim=1)
    output y = a + b
""",
    ),
    "E0520": CodeInfo(
        "assertion failed",
        """The author of the block or model demands something of its arguments that does not hold.

Wrong:

    heads = 3
    assert 8 % heads == 0, "8 features do not divide into {heads} heads"
    input x: f32[N, 8]
    output y = relu(x)

Right:

    heads = 4
    assert 8 % heads == 0, "8 features do not divide into {heads} heads"
    input x: f32[N, 8]
    output y = relu(x)
""",
    ),
}
