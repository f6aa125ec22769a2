"""The record that explains one diagnostic code."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent


@dataclass(frozen=True)
class CodeInfo:
    """What a code means.

    Attributes:
        title: One line that names the mistake.
        explanation: A short text with a wrong example and its correction, for a terminal.
    """

    title: str
    explanation: str


def explained(title: str, why: str, wrong: str, right: str) -> CodeInfo:
    """A :class:`CodeInfo` from the reason, an example with the mistake, and one without it."""
    examples = [("Wrong", wrong), ("Right", right)]
    shown = [f"{word}:\n\n{indent(text.strip(), '    ')}" for word, text in examples]
    return CodeInfo(title, "\n\n".join([why.strip(), *shown]))
