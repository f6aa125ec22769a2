"""Fuzzes the parser and formatter with atheris: ``python tests/fuzz/fuzz_parser.py [corpus]``.

Any bytes must give a file or a diagnostic, and what parses must survive formatting unchanged.
Not collected by pytest; atheris is not among the dependencies (``pip install atheris``).
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["graphc"]):
    from graphc.diagnostics import DiagnosticError, render
    from graphc.syntax.formatter import format_source
    from graphc.syntax.parser import decode, parse, parse_bytes


def check(data: bytes) -> None:
    """One input: raises unless the parser and formatter behave."""
    try:
        file = parse_bytes("fuzz.nn", data)
    except DiagnosticError as error:
        render(error.diagnostics, color=True)
        return
    text = format_source(decode("fuzz.nn", data))
    again = decode("fuzz.nn", text.encode())
    if parse(again) != file:
        raise AssertionError("formatting changed the meaning")
    if format_source(again) != text:
        raise AssertionError("formatting twice differs from formatting once")


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
