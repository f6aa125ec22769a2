"""How the frontend says that something is wrong, and goes on to find the next mistake."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from graphc.diagnostics import Collector, Diagnostic, Frame, Label
from graphc.ir.op import OpError
from graphc.source import Span


class FailedError(Exception):
    """What is being evaluated has failed and the diagnostic is already collected."""


class RejectError(OpError):
    """A layer or function rejects its arguments.

    `argument` names the argument at fault, if it is one; `label` is written under the carets; `wanted` is the number
    of input features that a layer was declared for, from which help is computed; `axis` is the axis of the operand
    whose size is at fault.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "E0405",
        help: str | None = None,
        argument: str | None = None,
        operand: int | None = None,
        label: str = "",
        wanted: int | None = None,
        axis: int | None = None,
    ) -> None:
        super().__init__(message, operand=operand, code=code, help=help)
        self.argument, self.label, self.wanted = argument, label, wanted
        self.axis = axis


Related = Sequence[tuple[Span, str]]


class Reporter:
    """Collects diagnostics with the call stack of blocks at the time.

    One code is reported once per place: a block that is expanded sixteen times is wrong once.
    """

    def __init__(self) -> None:
        self.collector = Collector()
        self.trace: list[Frame] = []
        self._seen: set[tuple[str, Span]] = set()

    def error(
        self,
        code: str,
        message: str,
        span: Span,
        text: str = "",
        *,
        related: Related = (),
        notes: Iterable[str] = (),
        help: str | Iterable[str] | None = None,
    ) -> FailedError:
        """Collects an error; returns what to raise when evaluation cannot go on."""
        self._add(code, message, span, text, related, notes, help, "error")
        return FailedError()

    def fail(
        self,
        code: str,
        message: str,
        span: Span,
        text: str = "",
        *,
        related: Related = (),
        notes: Iterable[str] = (),
        help: str | Iterable[str] | None = None,
    ) -> NoReturn:
        """Collects an error and raises FailedError."""
        raise self.error(code, message, span, text, related=related, notes=notes, help=help)

    def warn(
        self, code: str, message: str, span: Span, text: str = "", *, help: str | None = None
    ) -> None:
        """Collects a warning."""
        self._add(code, message, span, text, (), (), help, "warning")

    def _add(
        self,
        code: str,
        message: str,
        span: Span,
        text: str,
        related: Related,
        notes: Iterable[str],
        help: str | Iterable[str] | None,
        severity: str,
    ) -> None:
        if (code, span) in self._seen:
            return
        self._seen.add((code, span))
        helps = (help,) if isinstance(help, str) else tuple(help or ())
        self.collector.add(
            Diagnostic(
                code,
                message,
                Label(span, text),
                tuple(Label(s, t) for s, t in related),
                tuple(notes),
                helps,
                tuple(reversed(self.trace)),
                "error" if severity == "error" else "warning",
            )
        )
