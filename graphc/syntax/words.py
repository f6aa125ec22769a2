"""The words of the language, and words of other languages that people bring along."""

from __future__ import annotations

# fmt: off
DEFINITIONS = ("model", "block", "train", "from")
"""Words that begin an item of a file."""

STATEMENTS = (
    "input", "output", "shared", "param", "if", "for", "assert", "return", "scan", "emit",
    "cond", "checkpoint",
)
"""Words that begin a statement of a model or block."""

TRAIN_STATEMENTS = (
    "loss", "metric", "optimizer", "schedule", "augment", "freeze", "batch", "epochs",
)
"""Words that begin a statement of a train block and nothing elsewhere."""

HEADS = ("model", "block", "train", "if", "else", "for", "scan", "cond", "checkpoint")
"""Words that begin something with a body in braces."""

RESERVED = frozenset((
    *STATEMENTS, "else", "from", "import", "true", "false", "none", "and", "or", "not", "in",
    "with",
))
"""Words that cannot name a value: a statement or expression begins or goes on with them."""
# fmt: on

TYPE_ALIASES = {
    "float32": "f32",
    "float16": "f16",
    "half": "f16",
    "bfloat16": "bf16",
    "float64": "f64",
    "double": "f64",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "long": "i64",
    "uint8": "u8",
    "byte": "u8",
    "string": "str",
    "boolean": "bool",
    "integer": "int",
    "Module": "layer",
    "module": "layer",
}
"""Names of types elsewhere, and what they are called here."""

FOREIGN_LITERALS = {
    "True": "true",
    "False": "false",
    "None": "none",
    "TRUE": "true",
    "FALSE": "false",
    "null": "none",
    "nil": "none",
    "nullptr": "none",
}
"""Constants elsewhere, and how they are spelled here."""

_DEFINE = "a reusable part is a `block`, a whole network a `model`"
_BIND = "a value is bound by `name = value` alone"

FOREIGN_WORDS = {
    "def": _DEFINE,
    "fn": _DEFINE,
    "func": _DEFINE,
    "function": _DEFINE,
    "class": _DEFINE,
    "module": _DEFINE,
    "network": _DEFINE,
    "let": _BIND,
    "var": _BIND,
    "const": _BIND,
    "import": 'write `from "file.nn" import Name`',
    "elif": "write `else if`",
    "switch": "write `if`, `else if`, `else`, or `cond` for a choice at run time",
    "while": "write `for` with a range, or `scan` for a loop at run time",
    "yield": "a step of a scan hands out values with `emit`",
    "raise": 'a check is written `assert condition, "message"`',
    "print": "`graphc summary` and `graphc draw` show what a model does",
    "pass": "a body may be empty: `{}`",
    "break": "a loop runs over all of its range; choose the range instead",
    "continue": "use `if` around the rest of the body",
    "lambda": "name a block instead",
    "try": "a check is written `assert condition`",
}
"""Words that begin a statement elsewhere, and what to write here."""
