"""Optimizers and schedules of a train block: calls like any other, checked against the classes of `optim`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from graphc.frontend.blocks import Blocks
from graphc.frontend.builtins import BUILTINS
from graphc.frontend.report import FailedError
from graphc.frontend.scope import Frame
from graphc.frontend.signature import Parameter, Signature, assign, converted
from graphc.optim import (
    OPTIMIZERS,
    SCHEDULES,
    ArgumentError,
    Chain,
    Fixed,
    Optimizer,
    ParamGroup,
    Rule,
    Schedule,
)
from graphc.source import Span
from graphc.syntax import ast

_RULE = ("clip_norm", "clip_value", "ema", "accumulate", "no_decay")


_EXTRA = {
    "clip_norm": Parameter("clip_norm", float, None, False, True),
    "clip_value": Parameter("clip_value", float, None, False, True),
    "ema": Parameter("ema", float, None, False, True),
    "accumulate": Parameter("accumulate", int, 1, False, True),
    "no_decay": Parameter("no_decay", tuple[str, ...], (), False, True),
}
"""Arguments of every optimizer besides its own: see `optim.Rule`; `no_decay` are patterns without weight decay."""


class Recipes(Blocks):
    """Reads how parameters are changed. `said` holds what the statements of a train block came to, by their kind."""

    said: dict[type[ast.Node], Any]

    def optimizer(self, node: ast.Optimizer, frame: Frame) -> None:
        """`optimizer AdamW(lr=1e-3, clip_norm=1.0)`."""
        self.once(node, "optimizer")
        own, values = self._made(node.value, OPTIMIZERS, "optimizer", frame, _RULE)
        assert isinstance(own, Optimizer)
        groups: tuple[ParamGroup, ...] = ()
        no_decay = values.pop("no_decay", ())
        if no_decay:
            groups = tuple(ParamGroup(p, {"weight_decay": 0.0}) for p in no_decay)
        schedule = self.said.get(ast.Schedule, Fixed())
        self.said[ast.Optimizer] = self._checked(
            node.value.span, lambda: Rule(own, schedule, groups, **values)
        )

    def schedule(self, node: ast.Schedule, frame: Frame) -> None:
        """`schedule warmup(200) -> cosine(total=4000)`."""
        self.once(node, "schedule")
        parts: list[Any] = [node.value]
        if isinstance(node.value, ast.Chain):
            parts = [node.value.value, *(s.target for s in node.value.stages)]
        made = [self._made(p, SCHEDULES, "schedule", frame)[0] for p in parts]
        schedules = [s for s in made if isinstance(s, Schedule)]
        schedule = schedules[0]
        if len(schedules) > 1:
            schedule = self._checked(node.value.span, lambda: Chain(tuple(schedules)))
        self.said[ast.Schedule] = schedule
        rule = self.said.get(ast.Optimizer)
        if isinstance(rule, Rule):
            self.said[ast.Optimizer] = replace(rule, schedule=schedule)

    def _made(
        self,
        node: Any,
        table: Mapping[str, type[Any]],
        what: str,
        frame: Frame,
        extra: tuple[str, ...] = (),
    ) -> tuple[Any, dict[str, Any]]:
        """`AdamW(lr=1e-3)` as an object, and the values of the `extra` keywords beside its own."""
        call = node if isinstance(node, ast.Call) else None
        name = call.callee if call is not None else node
        if not isinstance(name, ast.Name) or name.id not in table:
            if isinstance(name, ast.Name) and name.id not in {**BUILTINS, **frame.env}:
                raise FailedError  # the check of names has said so
            self.report.fail(
                "E0822",
                f"`{name.span.text}` is no {what}",
                name.span,
                help=f"it is one of {', '.join(table)}",
            )
        cls = table[name.id]
        signature = Signature.of(cls.__init__, skip=1)
        known = signature.by_name
        more = tuple(_EXTRA[n] for n in extra if n not in known)
        signature = Signature((*signature.parameters, *more))
        arguments = self.arguments(call, frame) if call is not None else ()
        bound, _ = assign(signature, name.id, arguments, node.span, self.report)
        values = converted(signature, name.id, bound, self.report)
        rest = {k: values.pop(k) for k in list(values) if k in extra and k not in known}
        spans = {k: a.span for k, a in bound.items()}
        return self._checked(node.span, lambda: cls(**values), spans), rest

    def _checked(
        self, span: Span, make: Callable[[], Any], spans: Mapping[str, Span] | None = None
    ) -> Any:
        """What `make` returns; what it says about its arguments is reported at theirs."""
        try:
            return make()
        except ArgumentError as error:
            place = (spans or {}).get(error.argument, span)
            self.report.fail("E0405", f"`{error.argument}` {error.message}", place)

    def once(self, node: ast.Node, word: str) -> None:
        """Reports E0305 for a statement that the block has already."""
        if type(node) in self.said:
            self.report.fail("E0305", f"`{word}` is said twice", node.span)
