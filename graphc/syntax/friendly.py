"""Syntax errors in the words of the person who made them.

:func:`explain` gets the place where the parser stopped and what it would have taken there. Rules
for the usual slips are tried in order, each a function that looks around the place; if none knows
better, the error says what was expected.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.diagnostics import Diagnostic, Label
from graphc.syntax.expected import unexpected
from graphc.syntax.place import Place
from graphc.syntax.scan import Scan
from graphc.syntax.words import DEFINITIONS, FOREIGN_WORDS, HEADS, STATEMENTS, TRAIN_STATEMENTS

_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


def explain(scan: Scan, offset: int, expected: frozenset[str]) -> Diagnostic:
    """The diagnostic for a parser that stopped at ``offset``, where it would take ``expected``.

    ``expected`` holds terminal names of the grammar.
    """
    place = Place.at(scan, offset, expected)
    for rule in _RULES:
        diagnostic = rule(place)
        if diagnostic is not None:
            return diagnostic
    return unexpected(place)


_Rule = Callable[[Place], "Diagnostic | None"]


def _value_ends(place: Place, step: int) -> bool:
    kind = place.kind_at(step)
    return kind in ("name", "number", "string") or place.word_at(step) in (")", "]")


def _value_begins(place: Place, step: int) -> bool:
    return place.kind_at(step) in ("name", "number", "string")


# ---- Words and numbers --------------------------------------------------------------------------


def _foreign_word(place: Place) -> Diagnostic | None:
    if place.word == "elif" and place.word_at(-1) == "}":
        return place.error("E0116", "there is no `elif` in this language", "", "write `else if`")
    step = place.begin - place.index
    first = place.word_at(step)
    if step < -1 or first not in FOREIGN_WORDS or place.word in ("=", ","):
        return None
    message = f"there is no `{first}` in this language"
    if first == "import":
        message = "an import begins with `from`"
    return place.error("E0116", message, "", FOREIGN_WORDS[first], step=step)


def _line_comment(place: Place) -> Diagnostic | None:
    before = place.word_at(-1) if place.index else ""
    if place.word == "//" and (place.at_begin or place.kind_at(-1) == "newline"):
        return place.error("E0103", "a comment begins with `#`", "", "write `# ...`")
    if (place.word == "/" and place.word_at(1) == "*") or (before == "/" and place.word == "*"):
        return place.error("E0103", "a comment begins with `#`", "", "write `# ...` on each line")
    return None


def _number(place: Place) -> Diagnostic | None:
    if place.word == "." and place.kind_at(1) == "number" and not _value_ends(place, -1):
        return place.error(
            "E0111", "a number begins with a digit", "", f"write `0.{place.word_at(1)}`"
        )
    if place.kind_at(-1) == "number" and place.token.kind in ("name", "number"):
        before = place.scan.tokens[place.index - 1]
        if before.end == place.token.start:
            text = place.word_at(-1) + place.word
            span = place.span(-1).join(place.span())
            return Diagnostic(
                "E0111",
                f"`{text}` is neither a number nor a name",
                Label(span, ""),
                help=("a name begins with a letter or `_`",),
            )
    return None


def _keyword_as_name(place: Place) -> Diagnostic | None:
    words = (*STATEMENTS, *TRAIN_STATEMENTS)
    if place.index - place.begin == 1 and place.word in ("=", ",") and place.first in words:
        return place.error(
            "E0110",
            f"`{place.first}` is a keyword and cannot be a name",
            "keyword",
            f"choose another name, such as `{place.first}_`",
            step=-1,
        )
    return None


# ---- Statements in the wrong place --------------------------------------------------------------


def _misplaced(place: Place) -> Diagnostic | None:
    """A statement or definition where its kind cannot stand.

    Its first word is no keyword there, so the parser may have taken it for a name and stopped at
    the token after it.
    """
    step = place.begin - place.index
    first, second = place.first, place.word_at(step + 1)
    if step not in (0, -1) or (step == -1 and place.word in ("=", ",")):
        return None
    if place.token.depth == 0:
        if first in (*STATEMENTS, *TRAIN_STATEMENTS) or (step == 0 and second in ("=", "->", ",")):
            return place.error(
                "E0121",
                "a statement stands outside of a model or block",
                "not inside any braces",
                "open `model Name { ... }` around it",
                step=step,
            )
        return None
    if first in DEFINITIONS:
        return place.error(
            "E0121",
            "a definition or import stands inside another definition",
            f"`{first}` belongs to the top level of a file",
            "move it out, and use it here by its name",
            step=step,
        )
    if place.in_train and first in STATEMENTS and first != "input":
        return place.error(
            "E0121",
            f"`{first}` does not belong in a train block",
            "",
            "a train block holds input, assignments, " + ", ".join(TRAIN_STATEMENTS),
            step=step,
        )
    if not place.in_train and first in TRAIN_STATEMENTS:
        return place.error(
            "E0121",
            f"`{first}` belongs in a train block",
            "",
            "open `train Model { ... }` around it",
            step=step,
        )
    return None


# ---- Bodies -------------------------------------------------------------------------------------


def _choice(place: Place) -> Diagnostic | None:
    """`if` and `cond` mixed up, or a choice where a value belongs."""
    closed = place.word_at(-2) == "}" and place.word_at(-1) == "else"
    if closed and place.word in ("if", "cond"):
        other = {"if": "cond", "cond": "if"}[place.word]
        return place.error(
            "E0125",
            f"after `else` there is a body, or another `{other}`",
            "",
            "a choice is made while the graph is built (`if`) or when it runs (`cond`)",
        )
    if place.word_at(-1) == "cond" and place.index - place.begin > 1 and not closed:
        return place.error(
            "E0121",
            "`cond` is a statement and has no value",
            "",
            "bind a name in both of its bodies: `cond p { y = a } else { y = b }`",
            step=-1,
        )
    return None


def _body(place: Place) -> Diagnostic | None:
    if "LBRACE" not in place.expected or place.first not in HEADS:
        return None
    if place.word == "{":
        return None
    if place.word == ":":
        return place.error(
            "E0125", "a body stands in braces", "instead of the colon", "write `{ ... }`"
        )
    if place.token.kind == "newline":
        step = 1
        while place.kind_at(step) == "newline":
            step += 1
        if place.word_at(step) == "{":
            return place.error(
                "E0125",
                "the brace that opens a body stands at the end of the line before it",
                "move this up",
                step=step,
            )
    if place.token.kind in ("newline", "end"):
        return place.error("E0125", "a body in braces is missing", "expected `{`")
    return None


# ---- Colons and equals signs --------------------------------------------------------------------


def _colon(place: Place) -> Diagnostic | None:
    """A colon where an equals sign belongs."""
    if place.word != ":" or place.kind_at(-1) != "name":
        return None
    name = place.word_at(-1)
    if place.bracket == "(" and place.first not in ("model", "block"):
        return place.error(
            "E0117",
            "an argument is given by `=`",
            "expected `=`",
            f"write `{name}=...`",
        )
    if place.index - place.begin == 1:
        return place.error(
            "E0117",
            "a value is bound by `=`",
            "expected `=`",
            f"write `{name} = ...`; a colon follows a label inside of a chain (`x -> {name}: ...`)",
        )
    return None


def _equals(place: Place) -> Diagnostic | None:
    """An equals sign where something else belongs."""
    if place.word != "=":
        return None
    before = place.before
    name = place.word_at(-1)
    if place.first in ("if", "cond", "assert") or (place.first == "else" and "if" in before):
        return place.error("E0117", "`=` binds a name; equality is `==`", "expected `==`")
    if place.first in ("input", "param", "shared") and len(before) == 2:
        what = "layer" if place.first == "shared" else "type"
        return place.error(
            "E0117",
            f"a colon and the {what} follow the name",
            "expected `:`",
            f"write `{place.first} {name}: ...`",
        )
    if "->" in before and place.bracket in ("", "["):
        return place.error(
            "E0117",
            "a label is followed by a colon",
            "expected `:`",
            f"write `-> {name}: ...`",
        )
    if place.first in ("model", "block") and place.bracket == "(":
        return place.error(
            "E0117",
            f"the parameter `{name}` has no type",
            "expected `:` and a type",
            f"write `{name}: int = ...`",
        )
    if place.word_at(-1) in ("+", "-", "*", "/", "//", "%", "@", "**"):
        operator = place.word_at(-1)
        return place.error(
            "E0126",
            f"there is no `{operator}=`",
            "",
            f"write `{before[0]} = {before[0]} {operator} ...`",
        )
    return None


# ---- Assignments and values without effect ------------------------------------------------------


def _assignment(place: Place) -> Diagnostic | None:
    """A statement that begins like an assignment and is none."""
    step = place.begin - place.index
    begins = place.kind_at(step)
    if begins not in ("name", "number", "string", "open") or place.first in HEADS:
        return None
    if place.first in (*STATEMENTS, *DEFINITIONS) or place.token.depth == 0 or place.in_train:
        return None
    if place.bracket or not (place.at_begin or "ASSIGN" in place.expected):
        return None
    if not place.at_begin and _value_begins(place, 0):
        return None
    if place.word in ("+", "-", "*", "/", "//", "%", "@", "**") and place.word_at(1) == "=":
        operator = place.word
        return place.error(
            "E0126",
            f"there is no `{operator}=`",
            "",
            f"write `{place.first} = {place.first} {operator} ...`",
        )
    rest = place.index
    depth = place.scan.tokens[place.begin].depth
    while place.scan.tokens[rest].kind not in ("newline", "end"):
        token = place.scan.tokens[rest]
        if token.depth == depth and place.scan.word(token) == "=":
            span = place.span(step).join(place.span(rest - 1 - place.index))
            return Diagnostic(
                "E0126",
                "only a name can be assigned to",
                Label(span, "not a name"),
                help=("a value never changes; bind the new one to a name of its own",),
            )
        rest += 1
    span = place.span(step).join(place.span(max(rest - 1, place.begin) - place.index))
    return Diagnostic(
        "E0120",
        "the value of this line goes nowhere",
        Label(span, "not bound to a name"),
        help=("write `name = ...`, `output name = ...` or `return ...`",),
    )


# ---- Inside expressions -------------------------------------------------------------------------


def _chained_comparison(place: Place) -> Diagnostic | None:
    if place.word in _COMPARISONS and any(word in _COMPARISONS for word in place.before):
        return place.error(
            "E0127",
            "comparisons do not chain",
            "",
            "write `a < b and b < c`",
        )
    return None


def _dangling(place: Place) -> Diagnostic | None:
    """The end of a line after something that needs more."""
    if place.token.kind not in ("newline", "end") or place.at_begin:
        return None
    before = place.word_at(-1)
    if before == "->":
        return place.error(
            "E0119",
            "the line ends after an arrow",
            "nothing follows",
            "begin the next line with the arrow: `-> Layer(...)`",
            step=-1,
        )
    if (place.kind_at(-1) == "operator" and before not in (":", ".")) or before in ("and", "or"):
        fix = "begin the next line with the operator" if before != "=" else ""
        fix = fix or "put the beginning of the value on this line, or the value in parentheses"
        return place.error(
            "E0119", f"the line ends after `{before}`", "nothing follows", fix, step=-1
        )
    return None


def _missing_comma(place: Place) -> Diagnostic | None:
    if place.bracket not in ("(", "[") or "COMMA" not in place.expected:
        return None
    if not _value_ends(place, -1) or not _value_begins(place, 0):
        return None
    end = place.scan.tokens[place.index - 1].end
    return Diagnostic(
        "E0118",
        f"a comma is missing before `{place.word}`",
        Label(place.scan.source.span(end, end), "expected `,`"),
    )


def _missing_arrow(place: Place) -> Diagnostic | None:
    if "ARROW" not in place.expected or not _value_ends(place, -1):
        return None
    if place.token.kind != "name" or place.word in ("if", "in") or "->" not in place.before:
        return None
    end = place.scan.tokens[place.index - 1].end
    return Diagnostic(
        "E0118",
        f"an arrow is missing before `{place.word}`",
        Label(place.scan.source.span(end, end), "expected `->`"),
    )


_RULES: tuple[_Rule, ...] = (
    _line_comment,
    _foreign_word,
    _number,
    _keyword_as_name,
    _misplaced,
    _choice,
    _body,
    _colon,
    _equals,
    _chained_comparison,
    _dangling,
    _missing_comma,
    _missing_arrow,
    _assignment,
)
