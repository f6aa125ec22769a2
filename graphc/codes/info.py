"""The record that explains one diagnostic code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodeInfo:
    """What a code means.

    Attributes:
        title: One line that names the mistake.
        explanation: A short text with a wrong example and its correction, for a terminal.
    """

    title: str
    explanation: str
