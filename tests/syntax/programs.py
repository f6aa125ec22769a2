"""Hypothesis strategies for well-formed programs in any layout.

A strategy draws a list of tokens; :func:`written` puts spaces, line breaks and comments between
them wherever the language allows it, so that the formatter meets layouts nobody would write.
"""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = ("x", "h", "skip", "conv1", "straße", "N", "D", "Linear", "relu", "loss", "block")
Tokens = list[str]

GLUE = "\x00"
"""Stands between tokens that nothing may separate, as in a label."""

names = st.sampled_from(NAMES)
numbers = st.sampled_from(["0", "7", "1_000", "1e-5", "0.5", "2.", "1E6"])
strings = st.sampled_from(
    ['"same"', '"a {x} b"', r'"\"q\" {{}} \n"', '"bhqd,bhkd->bhqk"', '"# no"']
)
constants = st.sampled_from(["true", "false", "none"])
comments = st.sampled_from(["# a", "#b", "# -> c  ", "# else {", "#", "# " + "long " * 25])


def _one(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[Tokens]:
    return strategy.map(lambda text: [text])


def _separated(
    items: st.SearchStrategy[Tokens], least: int, most: int, trailing: bool = True
) -> st.SearchStrategy[Tokens]:
    """Items with commas between, and perhaps one after the last."""

    def joined(drawn: tuple[list[Tokens], bool]) -> Tokens:
        parts, comma = drawn
        tokens: Tokens = []
        for index, part in enumerate(parts):
            tokens += [","] if index else []
            tokens += part
        return [*tokens, ","] if comma and trailing and parts else tokens

    return st.tuples(st.lists(items, min_size=least, max_size=most), st.booleans()).map(joined)


def _flatten(*strategies: st.SearchStrategy[Tokens] | str) -> st.SearchStrategy[Tokens]:
    drawn = [st.just([s]) if isinstance(s, str) else s for s in strategies]
    return st.tuples(*drawn).map(lambda parts: [token for part in parts for token in part])


def _calls(
    callee: st.SearchStrategy[Tokens], value: st.SearchStrategy[Tokens]
) -> st.SearchStrategy[Tokens]:
    positional = _separated(value, 0, 3, trailing=False)

    def keywords(values: list[Tokens]) -> Tokens:
        tokens: Tokens = []
        for index, tokens_of_value in enumerate(values):
            tokens += [",", f"k{index}", "=", *tokens_of_value]
        return tokens

    named = st.lists(value, max_size=2).map(keywords)

    def call(parts: tuple[Tokens, Tokens, Tokens]) -> Tokens:
        callee_tokens, args, rest = parts
        arguments = [*args, *rest] if args else rest[1:]
        return [*callee_tokens, "(", *arguments, ")"]

    return st.tuples(callee, positional, named).map(call)


def _stages(value: st.SearchStrategy[Tokens]) -> st.SearchStrategy[Tokens]:
    name = _one(names)
    dotted = _flatten(name, ".", name)
    reference = st.one_of(name, dotted)
    target = st.one_of(reference, _calls(reference, value))
    label = st.one_of(
        name,
        st.sampled_from(
            [
                ["layer", GLUE, "{", "i", "+", "1", "}", GLUE, ".", GLUE, "{", "j", "}"],
                ["features", GLUE, ".", GLUE, "0"],
                ["a", GLUE, "{", "i", "}", GLUE, "_b"],
            ]
        ),
    )
    stage = st.one_of(target, _flatten(label, ":", target))
    group = st.lists(stage, min_size=1, max_size=2).map(
        lambda parts: ["[", *[t for i, p in enumerate(parts) for t in (["->"] * (i > 0) + p)], "]"]
    )
    return st.one_of(stage, stage, group, _flatten(label, ":", group))


def _grow(inner: st.SearchStrategy[Tokens]) -> st.SearchStrategy[Tokens]:
    """Values made of smaller ones; each drawn operand stands in parentheses half of the time."""
    operand = st.one_of(_one(names), _flatten("(", inner, ")"))
    operator = _one(st.sampled_from(["+", "-", "*", "/", "//", "%", "@", "**"]))
    compare = _one(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    index = st.sampled_from([[":"], ["..."], [":", ":", "2"], ["-", "1"], ["x", "+", "1", ":"]])
    chain = st.tuples(operand, st.lists(_stages(inner), min_size=1, max_size=5)).map(
        lambda drawn: [*drawn[0], *[t for stage in drawn[1] for t in ("->", *stage)]]
    )
    return st.one_of(
        _flatten(operand, operator, operand),
        _flatten(operand, operator, operand, operator, operand),
        _flatten(operand, compare, operand),
        _flatten(operand, _one(st.sampled_from(["and", "or"])), operand),
        _flatten("not", operand),
        _flatten("-", operand),
        _flatten(operand, "if", operand, "else", operand),
        _flatten(operand, ".", _one(names)),
        _flatten(operand, "[", st.one_of(index, operand), "]"),
        _calls(_one(names), inner),
        _flatten("[", _separated(inner, 0, 8), "]"),
        _flatten("(", inner, ",", _separated(inner, 0, 3), ")"),
        chain,
    )


atoms = st.one_of(_one(names), _one(numbers), _one(strings), _one(constants))
values = st.recursive(atoms, _grow, max_leaves=12)
tests = st.one_of(_one(names), _flatten("(", values, ")"), _flatten("x", "<", "3", "and", "h"))
types = st.sampled_from(
    [["f32", "[", "N", ",", "T", "<=", "512", "]"], ["i64", "[", "]"], ["f32", "[", "...", "]"]]
)


def _body(statements: st.SearchStrategy[Tokens]) -> st.SearchStrategy[Tokens]:
    return st.lists(statements, max_size=3).map(
        lambda drawn: ["{", "\n", *[t for s in drawn for t in (*s, "\n")], "}"]
    )


def _compound(statements: st.SearchStrategy[Tokens]) -> st.SearchStrategy[Tokens]:
    body = _body(statements)
    return st.one_of(
        _flatten("if", tests, body),
        _flatten("if", tests, body, "else", body),
        _flatten("if", tests, body, "else", "if", tests, body, "else", body),
        _flatten("for", "i", ",", "(", "a", ",", "b", ")", "in", tests, body),
        _flatten("scan", "a", "in", tests, "with", "b", "=", tests, "reversed", body),
        _flatten("cond", tests, body),
        _flatten("cond", tests, body, "else", body),
        _flatten("cond", tests, body, "else", "cond", tests, body, "else", body),
        _flatten("checkpoint", body),
    )


simple_statements = st.one_of(
    _flatten("h", "=", values),
    _flatten("h", ",", "(", "x", ",", "y", ")", "=", values),
    _flatten("h", "=", _separated(values, 2, 3, trailing=False)),
    _flatten("input", "x", ":", types),
    _flatten("output", "x", ",", "y"),
    _flatten("output", "x", "=", values),
    _flatten("shared", "emb", ":", "Embedding", "(", values, ")"),
    _flatten("param", "w", ":", types, "=", values),
    _flatten("assert", tests, ",", _one(strings)),
    _flatten("return", values),
    _flatten("emit", "h"),
)
statements = st.recursive(simple_statements, _compound, max_leaves=4)
train_statements = st.one_of(
    _flatten("loss", values),
    _flatten("metric", "m", "=", values),
    _flatten("schedule", values),
    _flatten("freeze", "bn*", ",", "a.*.b"),
    _flatten("batch", tests),
)
items = st.one_of(
    _flatten("from", '"a.nn"', "import", "A", ",", "B", "as", "C"),
    _flatten("from", "nn", ".", "transformer", "import", "(", "A", ",", ")"),
    _flatten("model", "M", "(", "a", ":", "int", "=", values, ")", _body(statements)),
    _flatten("block", "B", "(", "a", ":", types, ",", ")", _body(statements)),
    _flatten("train", "M", _body(train_statements)),
)
files = st.lists(items, max_size=3).map(lambda drawn: [t for i in drawn for t in (*i, "\n")])

_CONTINUES = {
    "->",
    "+",
    "*",
    "/",
    "//",
    "%",
    "@",
    "**",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "and",
    "or",
}


@st.composite
def written(draw: st.DrawFn) -> str:
    """The text of a program."""
    tokens = draw(files)
    noise = draw(st.randoms(use_true_random=False))
    comment = draw(comments)
    level = draw(st.sampled_from([0.0, 0.1, 0.4]))
    text = ""
    brackets: list[str] = []
    glued = False

    def line_break() -> str:
        blank = "\n" * noise.choice([1, 1, 2, 3])
        return (" " + comment if noise.random() < 0.5 else "") + blank + " " * noise.randrange(6)

    for token in tokens:
        if token == GLUE:
            glued = True
            continue
        inside = bool(brackets) and brackets[-1] in "(["
        may_break = inside or token in _CONTINUES or token == "else"
        if token == "\n":
            token = line_break() if noise.random() < 2 * level else "\n"
        elif (
            not glued and may_break and "{" not in brackets[-1:] * inside and noise.random() < level
        ):
            text += line_break()
        elif not glued:
            text += " "
        glued = False
        text += token
        if token in ("(", "[", "{"):
            brackets.append(token)
        elif token in (")", "]", "}"):
            brackets.pop()
    return text
