"""Short ways to load text and to run a graph."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from graphc import frontend
from graphc.diagnostics import DiagnosticError
from graphc.reference import interpret
from graphc.source import Source

Array = np.ndarray[Any, np.dtype[Any]]


def load(text: str, **options: Any) -> frontend.Elaborated:
    """The model in a text."""
    return frontend.load(Source("test.nn", text), **options)


def model(body: str, head: str = "") -> str:
    """A file with one model of the given body."""
    return f"{head}\nmodel M {{\n{body}\n}}\n"


def places(text: str, **options: Any) -> list[tuple[str, int, int]]:
    """(code, line, column) of all diagnostics of a text; none when it loads without a warning.

    A text with a train block is read as for training.
    """
    if re.search(r"^train\b", text, re.M):
        options.setdefault("mode", "train")
    try:
        found = load(text, **options).warnings
    except DiagnosticError as error:
        found = error.diagnostics
    return [(d.code, d.primary.span.line, d.primary.span.column) for d in found if d.primary]


def codes(text: str, **options: Any) -> list[str]:
    """The codes of all diagnostics of a text."""
    return [code for code, _, _ in places(text, **options)]


def run(elaborated: frontend.Elaborated, seed: int = 0, **inputs: Array) -> dict[str, Array]:
    """The outputs with fresh parameters."""
    return interpret(elaborated.graph, inputs, frontend.initialise(elaborated.parameters, seed))


def compute(body: str, **inputs: Array) -> dict[str, Array]:
    """The outputs of a model without parameters, its inputs declared by the arrays given."""
    types = {"float32": "f32", "int64": "i64", "bool": "bool", "float64": "f64"}
    declared = [
        f"input {n}: {types[str(x.dtype)]}[{', '.join(map(str, x.shape))}]"
        for n, x in inputs.items()
    ]
    return run(load(model("\n".join([*declared, body]))), **inputs)
