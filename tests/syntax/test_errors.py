"""Every syntax error at its exact place, in its exact words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphc.codes import CODES
from graphc.diagnostics import DiagnosticError, to_json
from graphc.limits import MAX_ERRORS, MAX_INT, MAX_NAME, MAX_NESTING, MAX_SOURCE
from graphc.source import Source
from graphc.syntax.parser import parse, parse_bytes
from tests.golden import check_golden

ERRORS = Path(__file__).parent / "errors"


def codes_of(text: str) -> list[str]:
    """The codes that a text is reported with."""
    try:
        parse(Source("test.nn", text))
    except DiagnosticError as error:
        return [diagnostic.code for diagnostic in error.diagnostics]
    return []


@pytest.mark.parametrize("path", sorted(ERRORS.glob("*.nn")), ids=lambda path: path.stem)
def test_golden(request: pytest.FixtureRequest, path: Path) -> None:
    with pytest.raises(DiagnosticError) as caught:
        parse_bytes(path.name, path.read_bytes())
    check_golden(request, path.with_suffix(".txt"), str(caught.value) + "\n")


def test_every_syntax_code_has_a_golden_test() -> None:
    shown = {
        code
        for path in ERRORS.glob("*.txt")
        for code in re.findall(r"^error\[(E\d+)\]", path.read_text(encoding="utf-8"), re.M)
    }
    elsewhere = {"E0102", "E0104", "E0105", "E0112"}
    assert shown | elsewhere == {code for code in CODES if code.startswith("E01")}


@pytest.mark.parametrize("code", [code for code in CODES if code.startswith("E01")])
def test_explanation_shows_the_mistake_and_its_correction(code: str) -> None:
    if code in ("E0102", "E0105"):  # not about the text of a file
        return
    _, wrong, right = re.split(r"(?:Wrong|Right):\n\n", CODES[code].explanation)
    wrong, right = (re.sub(r"^    ", "", text, flags=re.M) for text in (wrong, right))
    bodies = [wrong, f"model M {{\n{wrong}\n}}"]
    assert any(code in codes_of(body) for body in bodies), codes_of(bodies[1])
    assert not codes_of(right) or not codes_of(f"model M {{\n{right}\n}}")


def test_the_position_is_exact_in_json() -> None:
    with pytest.raises(DiagnosticError) as caught:
        parse(Source("a.nn", "model A {\n    h = x -> fc = Linear(3)\n}\n"))
    (data,) = to_json(caught.value.diagnostics)
    assert data["code"] == "E0117"
    assert data["primary"] == {
        "file": "a.nn",
        "line": 2,
        "column": 17,
        "end_line": 2,
        "end_column": 18,
        "start": 26,
        "end": 27,
        "text": "expected `:`",
    }


@pytest.mark.parametrize("bracket", "([{")
def test_a_hundred_thousand_brackets(bracket: str) -> None:
    assert codes_of("model A { x = " + bracket * 100_000) == ["E0104"]


@pytest.mark.parametrize(
    "expression",
    [
        "not " * 5000 + "a",
        "-" * 5000 + "a",
        "a ** " * 5000 + "a",
        "a + " * 5000 + "a",
        "a or " * 5000 + "a",
        "a if b else " * 5000 + "a",
        "a" + ".b" * 5000,
        "a" + "()" * 5000,
        "a" + "[0]" * 5000,
    ],
)
def test_operators_nest_only_so_deep(expression: str) -> None:
    assert codes_of(f"model A {{ x = {expression} }}") == ["E0104"]


def test_a_chain_of_choices_is_nesting() -> None:
    chain = "cond a { }" + " else cond a { }" * 1000
    assert codes_of(f"model A {{ {chain} }}") == ["E0104"]


def test_what_is_long_but_not_deep_is_fine() -> None:
    chain = "x" + " -> relu" * 1000
    branches = "if a { }" + " else if a { }" * 1000
    assert codes_of(f"model A {{\nx = {chain}\n{branches}\n}}") == []


def test_nesting_up_to_the_limit() -> None:
    levels = MAX_NESTING - 1  # the body of the model is one
    assert codes_of("model A { x = " + "(" * (levels - 1) + "a" + ")" * (levels - 1) + " }") == []
    assert codes_of("model A { x = " + "(" * levels + "a" + ")" * levels + " }") == []
    assert codes_of("model A { x = " + "(" * (levels + 1) + "a") == ["E0104"]


def test_sizes() -> None:
    assert codes_of("#" * (MAX_SOURCE + 1)) == ["E0105"]
    assert codes_of("#" * MAX_SOURCE) == []
    assert codes_of(f"model A {{ {'h' * (MAX_NAME + 1)} = x }}") == ["E0112"]
    assert codes_of(f"model A {{ {'h' * MAX_NAME} = x }}") == []
    assert codes_of(f"model A {{ h = {MAX_INT} }}") == []
    assert codes_of(f"model A {{ h = {MAX_INT + 1} }}") == ["E0111"]
    assert codes_of(f"model A {{ h = {'9' * 10_000} }}") == ["E0111"]
    with pytest.raises(DiagnosticError, match="E0105"):
        parse_bytes("a.nn", b" " * (MAX_SOURCE + 1))


def test_errors_are_bounded() -> None:
    assert len(codes_of("model A {\n" + "x y\n" * 1000 + "}")) == MAX_ERRORS
    assert len(codes_of("$a" * 1000)) == MAX_ERRORS
    assert len(codes_of(")" * 1000)) == MAX_ERRORS


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b"\xff\xfem\x00", 1, 1), (b"model A {\n  # \xc3\xa4 \xe4\n}", 2, 7)],
)
def test_bytes_that_are_no_text(data: bytes, line: int, column: int) -> None:
    with pytest.raises(DiagnosticError) as caught:
        parse_bytes("a.nn", data)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0102"
    assert diagnostic.primary is not None
    assert (diagnostic.primary.span.line, diagnostic.primary.span.column) == (line, column)
