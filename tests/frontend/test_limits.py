"""A file cannot make elaboration hang, crash or exhaust the machine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import frontend
from graphc.diagnostics import DiagnosticError
from graphc.frontend import Limits
from graphc.source import Source
from tests.frontend.helpers import codes, load, model
from tests.syntax.programs import written

SMALL = Limits(steps=5_000, iterations=500, uses=200, nodes=300, depth=12)

RECURSION = (
    "block A(x: f32[N]) {{\n return {}\n}}\nmodel M {{\n input x: f32[N]\n output y = x -> A\n}}"
)

HUNGRY: dict[str, tuple[str, str]] = {
    "recursion": (RECURSION.format("x -> A"), "E0501"),
    "mutual recursion": (
        "block B(x: f32[N]) {\n return x -> A\n}\n" + RECURSION.format("x -> B"),
        "E0501",
    ),
    "recursion through an argument": (
        "block A(x: f32[N], f: block) {\n return x -> f(f)\n}\n"
        "model M {\n input x: f32[N]\n output y = x -> A(A)\n}",
        "E0501",
    ),
    "branching recursion": (RECURSION.format("(x -> A) + (x -> A)"), "E0501"),
    "billion steps": (model("input x: f32[N]\nfor i in range(10 ** 9) {\n}\noutput x"), "E0502"),
    "nested loops": (
        model(
            "input x: f32[N]\nfor i in range(10 ** 4) {\n for j in range(10 ** 4) {\n }\n}\noutput x"
        ),
        "E0502",
    ),
    "too many nodes": (
        model("input x: f32[N]\nh = x\nfor i in range(99_999) {\n h = h + 1\n}\noutput h"),
        "E0503",
    ),
    "too many layers": (
        model(
            "input x: f32[N, 4]\nh = x\nfor i in range(99_999) {\n h = h -> Identity\n}\noutput h"
        ),
        "E0503",
    ),
    "doubling list": (
        model("input x: f32[N]\nl = [1]\nfor i in range(64) {\n l = l + l\n}\noutput x"),
        "E0502",
    ),
    "doubling string": (
        model('input x: f32[N]\nl = "ab"\nfor i in range(64) {\n l = l + l\n}\noutput x'),
        "E0502",
    ),
    "interpolated string": (
        model('input x: f32[N]\nl = "ab"\nfor i in range(64) {\n l = "{l}{l}"\n}\noutput x'),
        "E0502",
    ),
    "repeated list": (model("input x: f32[N]\nl = [0] * 10 ** 12\noutput x"), "E0502"),
    "nested list": (
        model(
            "input x: f32[N]\nl = [1]\nfor i in range(90) {\n l = [l, l]\n}\ninput y: f32[l]\noutput x"
        ),
        "E0502",
    ),
    "tower of powers": (model("input x: f32[N]\noutput y = x + 9 ** 9 ** 9"), "E0513"),
    "growing dimension": (
        model(
            "input x: f32[N, M, K]\nd = N + M + K\nfor i in range(30) {\n d = d * d\n}\n"
            "output y = zeros([d])\noutput x"
        ),
        "E0513",
    ),
    "nested quotients": (
        model(
            "input x: f32[N]\nd = N\nfor i in range(5000) {\n d = (d + 1) // 3\n}\n"
            "output y = zeros([d])\noutput x"
        ),
        "E0513",
    ),
    "huge tensor": (
        model("input x: f32[N]\noutput y = zeros([2 ** 30, 2 ** 30])\noutput x"),
        "E0504",
    ),
    "huge input": (model("input x: f32[2 ** 60]\noutput x"), "E0504"),
    "huge parameter": (
        model("input x: f32[N]\nparam w: f32[2 ** 60] = zeros()\noutput x"),
        "E0504",
    ),
    "many parameters": (
        model(
            "input x: f32[N, 65536]\nh = x\nfor i in range(64) {\n h = h -> l{i}: Linear(65536)\n}\noutput h"
        ),
        "E0504",
    ),
    "growing tensor": (
        model(
            "input x: f32[N, 2]\nh = x\nfor i in range(99) {\n h = concat([h, h], dim=1)\n}\noutput h"
        ),
        "E0504",
    ),
    "many dimensions": (
        model("input x: f32[N]\nh = x\nfor i in range(99) {\n h = unsqueeze(h, 0)\n}\noutput h"),
        "E0504",
    ),
    "many pieces": (model("input x: f32[N, 99999]\na = split(x, 1, dim=1)\noutput x"), "E0405"),
    "long label": (
        model(
            'input x: f32[N, 4]\nl = "a"\nfor i in range(12) {\n l = l + l\n}\noutput y = x -> {l}: Linear(3)'
        ).replace("-> {l}:", "-> a{l}:"),
        "E0314",
    ),
    "large window": (
        model("input x: f32[N, 3, H, W]\noutput y = x -> Conv2d(4, 2 ** 40)"),
        "E0504",
    ),
    "large adaptive pooling": (
        model("input x: f32[1, 1, 999999]\noutput y = x -> AdaptiveMaxPool1d(999998)"),
        "E0405",
    ),
    "large mean matrix": (
        model("input x: f32[1, 1, 9999999]\noutput y = x -> AdaptiveAvgPool1d(999998)"),
        "E0405",
    ),
}


@pytest.mark.parametrize("name", HUNGRY)
def test_hungry(name: str) -> None:
    text, code = HUNGRY[name]
    assert code in codes(text)


def test_a_bound_of_a_limit_is_told_with_its_place() -> None:
    with pytest.raises(DiagnosticError) as caught:
        load(HUNGRY["billion steps"][0])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.primary is not None
    assert diagnostic.primary.span.line == 4


def mutated(text: str, edits: list[tuple[int, int, str]]) -> str:
    for start, length, new in edits:
        at = start % (len(text) + 1)
        text = text[:at] + new + text[at + length :]
    return text


SEEDS = [
    model("input x: f32[N, 4]\noutput y = x -> fc: Linear(3) -> relu -> softmax(dim=1)"),
    model(
        "input x: f32[N, 3, 8, 8]\nh = x -> Conv2d(4, 3, padding=1) -> [ReLU -> Flatten]\noutput h"
    ),
    'block B(x: f32[N, D], k: int = 2, f: layer = ReLU) {\n    assert D % k == 0, "{D}"\n'
    "    for i in range(k) {\n        x = x[:, ::2] -> f\n    }\n    return x, D\n}\n"
    "model M(n: int = 4) {\n    input x: f32[N, 8]\n    a, b = x -> B(1)\n    shared s: Linear(4)\n"
    "    output y = (a -> s) * b\n}",
]
PIECES = [
    "0",
    "-1",
    "2",
    "N",
    "x",
    "D",
    "none",
    "true",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "->",
    "=",
    "==",
    "/",
    "//",
    "**",
    "@",
    "...",
    ":",
    ",",
    "\n",
    "f32",
    '"s"',
    "range",
    "Linear",
    "max",
    "split",
    "if ",
    "1.5",
    "block ",
    "shared ",
    "output ",
    "param w: f32[D] = ones()\n",
    "scan ",
    "cond ",
    "N + 1",
    "[x]",
    "(x,)",
]


@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 6), st.sampled_from(PIECES)), max_size=4
    ),
)
@settings(max_examples=120)
def test_any_text_gives_a_model_or_diagnostics(
    seed: str, edits: list[tuple[int, int, str]]
) -> None:
    settled(mutated(seed, edits))


@given(written())
@settings(max_examples=40)
def test_any_program_gives_a_model_or_diagnostics(program: str) -> None:
    settled(program)


def settled(text: str) -> None:
    """Loading ends with a model or with diagnostics that all have a place."""
    try:
        frontend.load(Source("fuzz.nn", text), limits=SMALL)
    except DiagnosticError as error:
        assert error.diagnostics
        assert all(d.primary is not None for d in error.diagnostics)
