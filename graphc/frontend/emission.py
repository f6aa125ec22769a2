"""Emitting ops for the user's line: what an op rejects becomes a diagnostic there, with where operands come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.frontend.limits import Budget, Limits
from graphc.frontend.mixed import Mixed
from graphc.frontend.provenance import Provenance, padding_help
from graphc.frontend.report import FailedError, RejectError, Reporter
from graphc.frontend.scope import Frame
from graphc.frontend.values import Argument, MixedLabels, Tensor, tensors_in
from graphc.ir.graph import GraphBuilder, Scope, Value
from graphc.ir.op import OpError
from graphc.source import Span


class Emission:
    """The builder, the reporter and the budget of one elaboration."""

    def __init__(self, b: GraphBuilder, report: Reporter, limits: Limits) -> None:
        self.b, self.report, self.limits = b, report, limits
        self.budget = Budget(limits)
        self.provenance = Provenance(b)

    def guard(
        self,
        span: Span,
        run: Callable[[], Any],
        *,
        operands: Sequence[Value] = (),
        arguments: Mapping[str, Argument] | None = None,
    ) -> Any:
        """Runs something that may reject its operands, and reports that at `span`. Raises FailedError."""
        try:
            return run()
        except OpError as error:
            raise self.rejected(error, span, operands, arguments or {}) from None

    def rejected(
        self,
        error: OpError,
        span: Span,
        operands: Sequence[Value],
        arguments: Mapping[str, Argument],
    ) -> FailedError:
        """Reports what an op, layer or function complains about, with the places its operands come from."""
        label = error.label if isinstance(error, RejectError) else ""
        name = error.argument if isinstance(error, RejectError) else None
        place = arguments[name].span if name is not None and name in arguments else span
        related = [
            each
            for slot, value in enumerate(operands)
            if name is None
            and (error.operand is None or slot == error.operand or len(operands) > 1)
            for each in self.provenance.of(value)
            if each[0] != place
        ]
        if error.span is not None and error.span != place:
            related.insert(0, (error.span, "is made here"))
        related = [*related, *self._sizes(error, operands)]
        help = error.help
        if isinstance(error, RejectError) and error.wanted is not None and operands:
            help = padding_help(self.b, operands[0], error.wanted) or help
        return self.report.error(
            error.code,
            error.message,
            place,
            label,
            related=list({place: (place, text) for place, text in reversed(related)}.values())[
                ::-1
            ],
            help=help,
        )

    def _sizes(self, error: OpError, operands: Sequence[Value]) -> list[tuple[Span, str]]:
        """Where the sizes at fault were decided, when that is not where the operands were made."""
        axis = error.axis if isinstance(error, RejectError) else None
        if axis is not None and operands:
            rank = self.b.type_of(operands[0]).rank
            return list(self.provenance.of_size(operands[0], axis % rank))
        if error.code != "E0202" or len(operands) != 2:
            return []
        shapes = [self.b.type_of(v).shape for v in operands]
        for back in range(1, min(map(len, shapes)) + 1):
            x, y = (shape[-back] for shape in shapes)
            if x != y and 1 not in (x, y):
                return [
                    place
                    for value, shape in zip(operands, shapes, strict=True)
                    for place in self.provenance.of_size(value, len(shape) - back)
                ]
        return []

    def emit(
        self,
        frame: Frame,
        span: Span,
        run: Callable[[], Any],
        inputs: Sequence[Value],
        arguments: Mapping[str, Argument] | None = None,
        scope: tuple[Scope, ...] | None = None,
    ) -> Any:
        """Runs something that emits ops at `span`; its results as values of the language. Raises FailedError."""
        with self.b.at(frame.scope if scope is None else scope, span):
            result = self.guard(span, run, operands=inputs, arguments=arguments)
        result = self.wrap(result, span)
        types = tuple(self.b.type_of(v) for v in inputs)
        for tensor in tensors_in(result):
            if tensor.value not in inputs:
                self.provenance.record(tensor.value, span, types)
        self.budget.nodes(len(self.b.nodes))
        return result

    def wrap(self, result: Any, span: Span) -> Any:
        """Graph values as tensors, through tuples and lists. Reports E0504 for one that is too large."""
        if isinstance(result, Value):
            kind = self.b.type_of(result)
            count = 1
            for size in kind.shape:
                count *= size if isinstance(size, int) else 1
            if count > self.limits.elements or len(kind.shape) > 32:
                self.report.fail(
                    "E0504",
                    f"a tensor {kind} is too large: at most 2 ** 40 elements and 32 dimensions",
                    span,
                )
            return Tensor(result, kind)
        if isinstance(result, Mixed):
            return MixedLabels(result.label, self.b.type_of(result.label), result)
        if isinstance(result, (tuple, list)):
            return type(result)(self.wrap(r, span) for r in result)
        return result
