"""Sources, spans, and how diagnostics are drawn, ordered and turned into data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.diagnostics import (
    Collector,
    Diagnostic,
    DiagnosticError,
    Frame,
    Label,
    nearest,
    render,
    to_json,
)
from graphc.source import Source, Span
from tests.golden import check_golden

GOLDEN = Path(__file__).parent / "rendered"

LENET = Source(
    "lenet.nn",
    """\
# LeNet-5
model LeNet(classes: int = 10) {
    input image: f32[N, 1, 28, 28]
    logits = image
        -> conv1: Conv2d(6, 5) -> Tanh -> AvgPool2d(2)
        -> conv2: Conv2d(16, 5) -> Tanh -> AvgPool2d(2)
        -> Flatten
        -> fc1: Linear(120, in_features=400) -> Tanh
    output logits
}
""",
)
WIDE = Source("größe.nn", 'block B(x: f32[N]) {\n\ty = "日本語" + e\u0301 @ x\n\t文字 = x\n}\n')


def at(source: Source, text: str, occurrence: int = 0) -> Span:
    """The span of a piece of text."""
    start = -1
    for _ in range(occurrence + 1):
        start = source.text.index(text, start + 1)
    return source.span(start, start + len(text))


def label(source: Source, text: str, says: str = "", occurrence: int = 0) -> Label:
    return Label(at(source, text, occurrence), says)


CASES = {
    "shapes": Diagnostic(
        "E0204",
        "Linear `fc1` was declared for 400 input features but gets 256",
        label(LENET, "fc1: Linear(120, in_features=400)", "expects f32[..., 400]"),
        (label(LENET, "Flatten", "gives f32[N, 256], from f32[N, 16, 4, 4]"),),
        help=("conv2 has no padding; with padding=2 its output would be 5x5 and flatten to 400",),
    ),
    "one_line": Diagnostic(
        "E0204",
        "three places on one line",
        label(LENET, "Conv2d(6, 5)", "in the middle"),
        (label(LENET, "conv1", "first"), label(LENET, "AvgPool2d(2)", "last")),
        notes=("a note\nof two lines",),
    ),
    "overlap": Diagnostic(
        "E0204",
        "one place within another",
        label(LENET, "5", "this", 1),
        (label(LENET, "conv1: Conv2d(6, 5)", "part of this"),),
    ),
    "many_lines": Diagnostic(
        "E0204",
        "a place of many lines",
        Label(at(LENET, "model").join(at(LENET, "output logits")), "all of this"),
        (label(LENET, "LeNet", "the title", 0),),
    ),
    "gap": Diagnostic(
        "E0204",
        "lines far apart",
        label(LENET, "output logits", ""),
        (label(LENET, "LeNet-5", "one"), label(LENET, "image", "two")),
    ),
    "files": Diagnostic(
        "E0204",
        "places in two files",
        label(LENET, "Flatten", "here"),
        (label(WIDE, "@", "and there"),),
        trace=(
            Frame("while expanding `B`", at(LENET, "conv2")),
            Frame("while expanding `A`", at(LENET, "conv1")),
        ),
    ),
    "wide": Diagnostic(
        "E0204",
        "tabs, wide characters and combining marks",
        label(WIDE, "@", "operator"),
        (label(WIDE, '"日本語"', "left"), label(WIDE, "x", "right", 1)),
    ),
    "nowhere": Diagnostic("E0601", "no place at all", None, notes=("only a note",)),
    "end_of_file": Diagnostic(
        "E0101", "the end", Label(Span(LENET, len(LENET.text), len(LENET.text)), "here")
    ),
    "deep": Diagnostic(
        "E0501",
        "a deep stack",
        label(LENET, "Flatten"),
        trace=tuple(Frame(f"while expanding `B{i}`", at(LENET, "conv1")) for i in range(40)),
    ),
    "warning": Diagnostic(
        "E0302", "nobody uses this", label(LENET, "logits", "unused"), severity="warning"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rendering(request: pytest.FixtureRequest, name: str) -> None:
    check_golden(request, GOLDEN / f"{name}.txt", render([CASES[name]], color=False) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_colors_add_nothing_but_color(name: str) -> None:
    colored = render([CASES[name]], color=True)
    assert "\x1b[1;31m" in colored or CASES[name].severity == "warning"
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == render([CASES[name]], color=False)


def test_several_diagnostics_have_a_line_between() -> None:
    text = render([CASES["nowhere"], CASES["nowhere"]], color=False)
    assert text.count("\n\nerror[E0601]") == 1


def test_long_lines_are_drawn_around_the_mark() -> None:
    source = Source("long.nn", "a" * 5000 + "b" + "c" * 5000)
    text = render([Diagnostic("E0101", "far out", label(source, "b", "here"))], color=False)
    drawn, marks = text.split("\n")[3:5]
    assert len(drawn) < 180
    assert drawn.index("b") == marks.index("^")


def test_control_characters_never_reach_the_terminal() -> None:
    source = Source("evil\x1b[2J\n.nn", "x = \x1b[31m\u202e\x07\u2028y\n")
    diagnostic = Diagnostic("E0103", "bad \x1b[0m", label(source, "y", "\x9b"), notes=("\x00",))
    text = render([diagnostic], color=False)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert len(text.split("\n")) == 6


def test_the_text_of_the_exception_is_the_plain_rendering() -> None:
    error = DiagnosticError([CASES["shapes"]])
    assert str(error) == render([CASES["shapes"]], color=False)
    assert error.diagnostics == (CASES["shapes"],)


def test_collector_orders_by_place_and_drops_doubles() -> None:
    collector = Collector()
    for name in ("end_of_file", "shapes", "gap", "shapes", "nowhere", "warning"):
        collector.add(CASES[name])
    messages = [diagnostic.message for diagnostic in collector.diagnostics]
    assert messages == [
        CASES[name].message for name in ("nowhere", "warning", "shapes", "gap", "end_of_file")
    ]
    assert [d.message for d in collector.warnings] == ["nobody uses this"]
    assert len(collector.errors) == 4
    with pytest.raises(DiagnosticError) as caught:
        collector.raise_if_errors()
    assert caught.value.diagnostics == collector.diagnostics


def test_warnings_alone_raise_nothing() -> None:
    collector = Collector()
    collector.extend([CASES["warning"]])
    collector.raise_if_errors()


def test_json_holds_everything() -> None:
    (data,) = json.loads(json.dumps(to_json([CASES["files"]])))
    assert data["code"] == "E0204"
    assert data["severity"] == "error"
    assert data["primary"]["file"] == "lenet.nn"
    assert (data["primary"]["line"], data["primary"]["column"]) == (7, 12)
    assert data["secondary"][0]["file"] == "größe.nn"
    assert [frame["description"] for frame in data["trace"]] == [
        "while expanding `B`",
        "while expanding `A`",
    ]


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("Convd2", ["Conv2d", "Conv1d", "Linear"], "Conv2d"),
        ("conv2d", ["Conv2d", "conv2"], "Conv2d"),
        ("strid", ["stride", "padding"], "stride"),
        ("pading", ["stride", "padding"], "padding"),
        ("out_chanels", ["in_channels", "out_channels"], "out_channels"),
        ("xyzzy", ["stride", "padding"], None),
        ("x", ["y", "z"], None),
        ("X", ["x", "y"], "x"),
        ("relu", ["relu"], None),
        ("ab" * 50, ["ab" * 49], None),
    ],
)
def test_nearest(name: str, candidates: list[str], expected: str | None) -> None:
    assert nearest(name, candidates) == expected
    assert nearest(name, reversed(candidates)) == expected


def test_source_positions() -> None:
    source = Source("a", "ab\r\n\nc")
    assert source.line_count == 3
    assert [source.line_column(offset) for offset in (0, 2, 4, 5, 6, 99)] == [
        (1, 1),
        (1, 3),
        (2, 1),
        (3, 1),
        (3, 2),
        (3, 2),
    ]
    assert [source.line_text(line) for line in (1, 2, 3)] == ["ab", "", "c"]
    span = source.span(0, 2)
    assert (span.text, str(span), span.end_line, span.end_column) == ("ab", "a:1:1", 1, 3)
    assert span.join(source.span(5, 6)) == source.span(0, 6)
    with pytest.raises(ValueError, match="cannot join"):
        span.join(LENET.span(0, 1))


@given(st.text(max_size=50), st.data())
def test_any_span_of_any_text_can_be_drawn(text: str, data: st.DataObject) -> None:
    source = Source("any.nn", text)
    labels = []
    for _ in range(3):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, len(text)))
        labels.append(Label(source.span(start, end), data.draw(st.sampled_from(["", "a", "bc"]))))
    drawn = render([Diagnostic("E0101", "m", labels[0], tuple(labels[1:]))], color=False)
    assert drawn.startswith("error[E0101]: m\n")
    assert "^" in drawn
