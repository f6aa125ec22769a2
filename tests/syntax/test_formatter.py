"""The canonical formatting: same meaning, every comment, twice is once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from graphc.source import Source
from graphc.syntax.formatter import format_source
from graphc.syntax.parser import parse
from tests.syntax.programs import written


def formatted(text: str) -> str:
    return format_source(Source("test.nn", text))


def comments(text: str) -> list[str]:
    """The comments of a text; `# no` stands in a string of the generated programs."""
    return sorted(match.rstrip() for match in re.findall(r"#[^\n]*", text.replace('"# no"', "")))


@given(written())
def test_formatting_keeps_meaning_and_comments_and_is_idempotent(text: str) -> None:
    once = formatted(text)
    assert parse(Source("a", once)) == parse(Source("b", text))
    assert formatted(once) == once
    assert comments(once) == comments(text)


@given(written())
def test_the_outside_of_the_text(text: str) -> None:
    once = formatted(text)
    assert "\n\n\n" not in once
    assert not re.search(r"[ \t]+\n", once)
    assert once == "" or (once.endswith("\n") and not once.endswith("\n\n"))


CASES = {
    "a chain hangs under its first arrow": (
        "y=x->conv1:Conv2d(width,1,bias=false)->bn1:BatchNorm2d->ReLU\n"
        "-> conv2: Conv2d(width, 3, stride, padding=1, bias=false) -> bn2: BatchNorm2d -> ReLU\n"
        "  -> ReLU",
        "y = x -> conv1: Conv2d(width, 1, bias=false) -> bn1: BatchNorm2d -> ReLU\n"
        "      -> conv2: Conv2d(width, 3, stride, padding=1, bias=false) -> bn2: BatchNorm2d -> ReLU\n"
        "      -> ReLU",
    ),
    "rows of a chain align as columns": (
        "y = x\n-> conv1: Conv2d(6, 5, padding=2) -> Tanh\n-> conv2: Conv2d(16, 5) -> Tanh\n-> F",
        "y = x\n"
        "    -> conv1: Conv2d(6, 5, padding=2) -> Tanh\n"
        "    -> conv2: Conv2d(16, 5)           -> Tanh\n"
        "    -> F",
    ),
    "a long row is cut": (
        "hidden = tokens" + " -> linear: Linear(1024, bias=false)" * 4,
        "hidden = tokens -> linear: Linear(1024, bias=false) -> linear: Linear(1024, bias=false)\n"
        "                -> linear: Linear(1024, bias=false) -> linear: Linear(1024, bias=false)",
    ),
    "a long call has one argument a line": (
        "y = function(" + ", ".join(f"argument_number_{i}" for i in range(6)) + ")",
        "y = function(\n" + "".join(f"    argument_number_{i},\n" for i in range(6)) + ")",
    ),
    "numbers fill the line": (
        "y = [" + ", ".join(str(1000 + i) for i in range(24)) + "]",
        "y = [\n    "
        + ", ".join(str(1000 + i) for i in range(15))
        + ",\n    "
        + ", ".join(str(1015 + i) for i in range(9))
        + ",\n]",
    ),
    "operators begin a line": (
        "y = " + " + ".join(["a_rather_long_name"] * 6),
        "y = a_rather_long_name\n" + "\n".join(["    + a_rather_long_name"] * 5),
    ),
    "parentheses only where they matter": (
        "y = ((a + b)) * (c * d) + (e) ** (-f) - (x -> relu) + (a, b)[(0)]",
        "y = (a + b) * (c * d) + e ** -f - (x -> relu) + (a, b)[0]",
    ),
    "conditions in arguments stand apart": (
        "y = f(a=1,b=2 if c else 3)",
        "y = f(a=1, b = 2 if c else 3)",
    ),
    "slices": ("y = x[ : ,0,... , : : 2,a+1 : b]", "y = x[:, 0, ..., ::2, a + 1 : b]"),
    "comments keep their place": (
        "# above\nx = f( # first\na, # beside a\n# above b\nb\n# last\n) # after\n\n\n# end",
        "# above\nx = f(\n    # first\n    a,  # beside a\n    # above b\n    b,\n    # last\n"
        ")  # after\n\n# end",
    ),
    "comments in chains": (
        "y = x # input\n# above A\n-> A # beside A\n-> B",
        "y = x\n    # input\n    # above A\n    -> A  # beside A\n    -> B",
    ),
    "a comment between words moves above": ("y = (a # why\n + b)", "# why\ny = a + b"),
    "bodies": (
        "if a{x=1}else if b{}else{\n\n# c\n\n}\nfor i,(a,b) in c{x=1\n\n\ny=2\n}",
        "if a {\n    x = 1\n} else if b {} else {\n    # c\n}\n"
        "for i, (a, b) in c {\n    x = 1\n\n    y = 2\n}",
    ),
    "choices at run time": (
        "cond a>b{x=1}else cond(any(m)){}else{# no\nx=2\n}\ncond c{}",
        "cond a > b {\n    x = 1\n} else cond any(m) {} else {  # no\n    x = 2\n}\ncond c {}",
    ),
    "several values": (
        "return (a),b\n",
        "return a, b",
    ),
    "strings and numbers as written": (
        'y = f("{a}  {{", 1E-5, 1_000)',
        'y = f("{a}  {{", 1e-5, 1_000)',
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_case(text: str, expected: str) -> None:
    actual = formatted(f"model M {{\n{text}\n}}\n")
    lines = [("    " + line).rstrip() for line in expected.split("\n")]
    assert actual == "\n".join(["model M {", *lines, "}"]) + "\n"


def test_definitions_keep_their_distance() -> None:
    text = "from nn.a import A\nfrom nn.b import B\n# M\nmodel M{}\nblock B(x:f32[N]){}\n"
    assert formatted(text) == (
        "from nn.a import A\nfrom nn.b import B\n\n# M\nmodel M {}\n\nblock B(x: f32[N]) {}\n"
    )


def test_a_long_head() -> None:
    parameters = ", ".join(f"parameter_{i}: int = {i}" for i in range(5))
    assert formatted(f"model M({parameters}) {{\nx = 1\n}}") == (
        "model M(\n"
        + "".join(f"    parameter_{i}: int = {i},\n" for i in range(5))
        + ") {\n    x = 1\n}\n"
    )


def test_a_long_condition() -> None:
    assert formatted(
        f"model M {{\nif {' and '.join(['a_rather_long_name'] * 6)} {{\nx = 1\n}}\n}}"
    ) == (
        "model M {\n    if a_rather_long_name\n"
        + "            and a_rather_long_name\n" * 4
        + "            and a_rather_long_name {\n        x = 1\n    }\n}\n"
    )
