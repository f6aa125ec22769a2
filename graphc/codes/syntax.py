"""E01xx: mistakes of syntax."""

from __future__ import annotations

from graphc.codes.info import CodeInfo, explained
from graphc.limits import MAX_NAME, MAX_NESTING, MAX_SOURCE

CODES: dict[str, CodeInfo] = {
    "E0101": explained(
        "something else was expected here",
        "The text up to this place is understood, but what comes next does not go on from it. The\n"
        "message lists what would.",
        "output a b",
        "output a, b",
    ),
    "E0102": explained(
        "the file is not UTF-8 text",
        "Model files are text in UTF-8, with or without a byte order mark. Other encodings, and\n"
        "binary files such as weights, cannot be read as models.",
        "graphc check lenet.safetensors",
        "graphc check lenet.nn",
    ),
    "E0103": explained(
        "a character that means nothing here",
        "Outside of strings and comments the language uses letters, digits, `_` and a few signs.\n"
        "Statements end at the end of the line, without `;`. Comments begin with `#`.",
        "h = x + 1;",
        "h = x + 1",
    ),
    "E0104": explained(
        "nested too deep",
        f"Brackets in brackets, bodies in bodies and operators in operators go {MAX_NESTING}"
        " levels deep.\nNo readable model comes near; give an inner part a name of its own.",
        "h = ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((x\n"
        "    ))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))",
        "h = x",
    ),
    "E0105": explained(
        "the file is too large",
        f"A model file holds at most {MAX_SOURCE:,} bytes. Repetition is written with `for` and\n"
        "blocks, and blocks can be imported from other files.",
        "h1 = h0 -> fc1: Linear(64)\nh2 = h1 -> fc2: Linear(64)\n# ... and so on, ten thousand times",
        "for i in range(10000) {\n    h = h -> fc{i}: Linear(64)\n}",
    ),
    "E0106": explained(
        "a string is not closed",
        'A string begins and ends with `"` on one line. A line break inside it is written `\\n`,\n'
        'a double quote `\\"`.',
        'assert D > 0, "the width is not positive',
        'assert D > 0, "the width is not positive"',
    ),
    "E0107": explained(
        "a bracket is never closed",
        "Each `(`, `[` and `{` has its `)`, `]` and `}`. The error points at the bracket that has\n"
        "none, and at the place where it became clear.",
        "h = x -> Linear(64",
        "h = x -> Linear(64)",
    ),
    "E0108": explained(
        "a bracket closes nothing, or another one",
        "A closing bracket belongs to the last one that is still open and is of its kind.",
        "h = x -> Linear(64]",
        "h = x -> Linear(64)",
    ),
    "E0109": explained(
        "single quotes",
        "Strings stand in double quotes.",
        "h = x -> Conv2d(8, 3, padding='same')",
        'h = x -> Conv2d(8, 3, padding="same")',
    ),
    "E0110": explained(
        "a keyword as a name",
        "Words that begin a statement, and `in`, `and`, `or`, `not`, `with`, `true`, `false` and\n"
        "`none`, cannot name a value. As a label, an argument or an attribute any word will do.",
        "input = x -> relu",
        "features = x -> relu",
    ),
    "E0111": explained(
        "not a number of this language",
        "A number begins with a digit; an integer fits in 64 bits; `_` may group digits. A name\n"
        "does not begin with a digit.",
        "h = .5 * x",
        "h = 0.5 * x",
    ),
    "E0112": explained(
        "a name is too long",
        f"A name has at most {MAX_NAME} characters.",
        "h" + "_and_so_on" * 13 + " = x",
        "h = x",
    ),
    "E0113": explained(
        "something in a string does not belong there",
        'In a string, braces hold a value: `"width {D}"`. Plain braces are doubled: `{{` and `}}`.\n'
        'After a backslash stands one of n, t, r, ", \\ and u{1F600}.',
        'assert D > 0, "the set {D"',
        'assert D > 0, "the set {{{D}}}"',
    ),
    "E0114": explained(
        "an unknown type",
        "Element types are f32, f16, bf16, f64, i8, i16, i32, i64, u8 and bool. A parameter that is\n"
        "no tensor is int, float, bool, str, list, layer or block.",
        "input x: float32[N, 3]",
        "input x: f32[N, 3]",
    ),
    "E0115": explained(
        "a tensor type without a shape, or a shape without a tensor type",
        "A tensor type is an element type and a shape, `f32[N, 3]`; that of a scalar is `f32[]`.\n"
        "The kinds int, float, bool, str, list, layer and block take no shape.",
        "input x: f32",
        "input x: f32[N, 3]",
    ),
    "E0116": explained(
        "a word of another language",
        "This is how the thing is called elsewhere; the message says what to write here.",
        "bias = True",
        "bias = true",
    ),
    "E0117": explained(
        "`=` and `:` mixed up",
        "A colon follows a label and its layer (`fc: Linear(64)`) or a name and its type\n"
        "(`input x: f32[N]`). An equals sign binds a name to a value (`h = x + 1`) and gives an\n"
        "argument (`padding=1`). Two of them compare (`stride == 1`).",
        "h = x -> fc = Linear(64) -> Conv2d(8, 3, padding: 1)",
        "h = x -> fc: Linear(64) -> Conv2d(8, 3, padding=1)",
    ),
    "E0118": explained(
        "a comma or an arrow is missing",
        "Items in brackets are separated by commas, the stages of a chain by arrows.",
        "h = x -> Conv2d(8 3)",
        "h = x -> Conv2d(8, 3)",
    ),
    "E0119": explained(
        "the line ends too early",
        "A statement ends with its line, unless a bracket is open or the next line begins with an\n"
        "arrow or an operator. So arrows and operators stand at the beginning of a line.",
        "h = x ->\n    relu",
        "h = x\n    -> relu",
    ),
    "E0120": explained(
        "a value that goes nowhere",
        "A line that only computes something has no effect: values never change. Bind the result to\n"
        "a name, return it or output it.",
        "x -> relu",
        "h = x -> relu",
    ),
    "E0121": explained(
        "a statement or definition in the wrong place",
        "A file holds imports, models, blocks and train blocks. Statements stand inside of these;\n"
        "definitions do not stand inside one another; `loss`, `optimizer` and so on stand in a train\n"
        "block.",
        "model M {\n    input x: f32[N, 3]\n    loss cross_entropy(x, x)\n}",
        "model M {\n    input x: f32[N, 3]\n}\n\ntrain M {\n    loss cross_entropy(x, x)\n}",
    ),
    "E0122": explained(
        "an argument by position after one by name",
        "Arguments without a name come first.",
        "h = x -> Conv2d(8, padding=1, 3)",
        "h = x -> Conv2d(8, 3, padding=1)",
    ),
    "E0123": explained(
        "an argument given twice",
        "Each argument is given at most once.",
        "h = x -> Conv2d(8, 3, padding=1, padding=2)",
        "h = x -> Conv2d(8, 3, padding=2)",
    ),
    "E0124": explained(
        "a label out of place",
        "Numbers and values in braces may stand in a label, which is followed by a colon and its\n"
        "layer. A reference to a layer or function is a name, perhaps with dots. A label is written\n"
        "without spaces.",
        "h = x -> layer{i}",
        "h = x -> layer{i}: Linear(64)",
    ),
    "E0125": explained(
        "a body is missing or not in braces",
        "The body of a model, block, train, if, else, for, scan, cond or checkpoint stands in braces. The\n"
        "opening one stands on the same line.",
        "if stride == 1:\n    h = x",
        "if stride == 1 {\n    h = x\n}",
    ),
    "E0126": explained(
        "an assignment to something that is no name",
        "A value never changes, so there is no `+=` and no assignment to an element. Binding a name\n"
        "again gives it a new value from there on.",
        "h += x",
        "h = h + x",
    ),
    "E0127": explained(
        "comparisons do not chain",
        "A comparison has two sides; join two of them with `and`.",
        "assert 0 < D < 512",
        "assert 0 < D and D < 512",
    ),
    "E0128": explained(
        "more than one `...`",
        "Three dots stand for any number of dimensions, so a shape or subscript holds them once.",
        "input x: f32[..., N, ...]",
        "input x: f32[..., N]",
    ),
    "E0129": explained(
        "an import with a value in it",
        "An import names its file in full, so that what a model reads can be seen in it.",
        'from "blocks{i}.nn" import Bottleneck',
        'from "blocks.nn" import Bottleneck',
    ),
}
