"""Chains: `x -> conv1: Conv2d(64, 3) -> relu`. Applying layers, blocks and functions, and their place in the tree.

Longer than most, because what can stand in a chain is one choice, made in one place.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.frontend.keys import RandomKey
from graphc.frontend.kinds import MismatchError, convert
from graphc.frontend.layers.base import LayerClass
from graphc.frontend.report import FailedError
from graphc.frontend.scope import Frame, joined, snake
from graphc.frontend.signature import Function, assign, converted
from graphc.frontend.store import Store
from graphc.frontend.values import (
    POISON,
    Argument,
    BlockDef,
    Bound,
    Method,
    Shared,
    Spec,
    SubChainValue,
    Tensor,
    describe,
    is_poisoned,
    tensors_in,
)
from graphc.ir.dim import Shape
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Scope, Value
from graphc.ir.types import TensorType
from graphc.source import Span
from graphc.syntax import ast


@dataclass(frozen=True)
class LayerUse:
    """One use of a layer or block, in the order of use; outer ones come before what is in them."""

    path: str
    kind: str
    scope: tuple[Scope, ...]
    span: Span
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]


@dataclass(frozen=True)
class _Place:
    """Where a layer goes: its label, parameter path, scope, and the shared layer it belongs to."""

    label: str
    path: str
    scope: tuple[Scope, ...]
    shared: Shared | None
    named: bool

    def what(self, kind: str) -> str:
        """The layer in messages: "Linear `fc1`"."""
        return f"{kind} `{self.label}`" if self.named else kind


class _Context:
    """What a built-in layer sees: see `layers.base.LayerContext`."""

    def __init__(self, stages: Stages, place: _Place, what: str, span: Span) -> None:
        self.b: GraphBuilder = stages.b
        self.what = what
        self._stages, self._place, self._span = stages, place, span

    def parameter(
        self,
        name: str,
        shape: Shape,
        init: str,
        *,
        dtype: DType = DType.F32,
        trainable: bool = True,
    ) -> Value:
        """The layer's parameter of that name; made at the first use, the same one ever after."""
        place = self._place
        path = joined(place.path, name)
        return self._stages.parameter(
            path, TensorType(dtype, shape), init, trainable, place.scope, place.shared, self._span
        ).value

    @property
    def training(self) -> bool:
        """Whether this is a training step, and the layer not frozen."""
        return self._stages.mode == "train" and not self._stages.is_frozen(self._place.path)

    def random_key(self) -> RandomKey:
        """A name for random numbers that nothing else in the step has."""
        return self._stages.random_key()

    def update(self, name: str, value: Value) -> None:
        """Gives a buffer of the layer its next value."""
        self._stages.updates[joined(self._place.path, name)] = value


class Stages(Store):
    """Chains and what stands in them. `uses` holds every use of a layer."""

    uses: list[LayerUse | None]

    @abstractmethod
    def run_block(
        self,
        block: BlockDef,
        arguments: tuple[Argument, ...],
        inputs: tuple[Any, ...],
        frame: Frame,
        inner: Frame,
        span: Span,
    ) -> Any:
        """Expands a block in the frame `inner`; `frame` is the caller's."""

    # ---- Chains -------------------------------------------------------------------------------

    def chain(self, node: ast.Chain, frame: Frame) -> Any:
        """The value of `x -> A -> B`. After a stage that failed the others are still looked at."""
        value = self.run_stages(node.stages, self.attempt(node.value, frame), frame)
        if is_poisoned(value):
            raise FailedError
        return value

    def run_stages(
        self, stages: Sequence[ast.Stage], value: Any, frame: Frame, *, numbered: bool = False
    ) -> Any:
        """The value after some stages; poison where one failed. `numbered`: labels are positions."""
        for position, stage in enumerate(stages):
            try:
                target = self.target(stage.target, frame)
                label = None if stage.label is None else self.label(stage.label, frame)
                if numbered and label is None:
                    label = str(position)
                if is_poisoned(value) or is_poisoned(target):
                    value = POISON
                else:
                    base = _base(stage.target, target)
                    named = stage.label is not None
                    value = self.apply(target, value, frame, stage.span, label, base, named)
            except FailedError:
                value = POISON
        return value

    def label(self, node: ast.Label, frame: Frame) -> str:
        """A label with its values filled in. Reports E0314 for one that is no path."""
        words: list[str] = []
        for segment in node.segments:
            parts: list[str] = []
            for part in segment.parts:
                if isinstance(part, str):
                    parts.append(part)
                    continue
                value = self.value(part, frame)
                if isinstance(value, bool) or not isinstance(value, (int, str)):
                    self.report.fail(
                        "E0314",
                        f"a label is made of integers and words, not of {describe(value)}",
                        part.span,
                    )
                parts.append(str(value))
            words.append("".join(parts))
        text = ".".join(words)
        if not all(w and w.replace("_", "a").isalnum() for w in text.split(".")) or len(text) > 256:
            self.report.fail("E0314", f'"{text[:64]}" is no label', node.span)
        return text

    def target(self, node: ast.StageTarget, frame: Frame) -> Any:
        """What a stage applies; arguments of a function leave its first one open. Raises FailedError."""
        if not isinstance(node, ast.Call):
            return self.evaluate(node, frame)
        callee = self.attempt(node.callee, frame)
        arguments = self.arguments(node, frame)
        if is_poisoned(callee):
            raise FailedError
        if isinstance(callee, Function):
            return Bound(callee, arguments, node.span)
        if isinstance(callee, (LayerClass, BlockDef)):
            return self.make_spec(callee, arguments, node.span)
        if isinstance(callee, Shared):
            return Method(callee, "apply", arguments, node.span)
        if isinstance(callee, Method):
            return Method(callee.shared, callee.name, arguments, node.span)
        self.report.fail(
            "E0308", f"{describe(callee)} takes no arguments in a chain", node.callee.span
        )

    def make_spec(
        self, callee: LayerClass | BlockDef, arguments: tuple[Argument, ...], span: Span
    ) -> Spec:
        """A layer with its arguments; those of a built-in layer are checked here. Raises FailedError."""
        if isinstance(callee, BlockDef):
            if is_poisoned([a.value for a in arguments]):
                raise FailedError
            return Spec(callee, arguments, span)
        bound, _ = assign(callee.accepted, callee.name, arguments, span, self.report)
        values = converted(callee.accepted, callee.name, bound, self.report)
        own = callee.signature.by_name
        layer = callee.cls(**{k: v for k, v in values.items() if k in own})
        options = {k: v for k, v in values.items() if k not in own}
        return Spec(callee, arguments, span, layer, options, bound)

    # ---- Application --------------------------------------------------------------------------

    def apply(
        self,
        target: Any,
        inputs: Any,
        frame: Frame,
        span: Span,
        label: str | None,
        base: str,
        named: bool,
    ) -> Any:
        """Applies a layer, block, chain or function to the value of a chain. Raises FailedError."""
        if isinstance(target, (Function, Bound)):
            return self._function(target, inputs, frame, span, label if named else None)
        if isinstance(target, (Shared, Method)):
            return self._shared(target, inputs, frame, span, label if named else None)
        if isinstance(target, (LayerClass, BlockDef)):
            target = self.make_spec(target, (), span)
        if not isinstance(target, (Spec, SubChainValue)):
            self.report.fail("E0308", f"{describe(target)} is no layer and no function", span)
        kind = target.callee.name if isinstance(target, Spec) else "chain"
        place = self._claim(frame, label, base, kind, span, named)
        return self._layer(target, inputs, frame, span, place)

    def _claim(
        self, frame: Frame, label: str | None, base: str, kind: str, span: Span, named: bool
    ) -> _Place:
        """Takes a label, or finds a free one. Reports E0306."""
        name = frame.fresh(base) if label is None else label
        if name in frame.labels:
            self.report.fail(
                "E0306",
                f"the label `{name}` is taken",
                span,
                "second layer of this name",
                related=[(frame.labels[name], "first layer of this name")]
                if frame.labels[name] != span
                else (),
                help=f"in a loop, number the label: `{name}.{{i}}: ...`"
                if frame.labels[name] == span
                else "one layer that is used twice is declared with `shared`",
            )
        frame.labels[name] = span
        scope = (*frame.scope, Scope(name, kind, span))
        return _Place(name, joined(frame.path, name), scope, frame.shared, named)

    def _layer(
        self,
        target: Spec | SubChainValue,
        inputs: Any,
        frame: Frame,
        span: Span,
        place: _Place,
        method: Method | None = None,
    ) -> Any:
        """Applies something that owns parameters at its place."""
        self.budget.use()
        slot = len(self.uses)
        self.uses.append(None)
        if isinstance(target, SubChainValue):
            kind = "chain"
            outer = target.scope
            inner = outer.inner(place.label, kind, span)
            inner.path, inner.scope, inner.shared = place.path, place.scope, place.shared
            value = self.run_stages(target.node.stages, inputs, inner, numbered=True)
        elif isinstance(target.callee, BlockDef):
            kind = target.callee.name
            inner = Frame(
                target.callee.module,
                target.callee.node,
                place.path,
                place.scope,
                frame.depth + 1,
                shared=place.shared,
            )
            arguments = (*target.arguments, *(method.arguments if method else ()))
            given = inputs if isinstance(inputs, tuple) else (inputs,)
            value = self.run_block(target.callee, arguments, given, frame, inner, span)
        else:
            kind = target.callee.name
            value = self._builtin(target, target.callee, inputs, frame, span, place, method)
        if is_poisoned(value):
            raise FailedError
        types = [tuple(t.type for t in tensors_in(v)) for v in (inputs, value)]
        self.uses[slot] = LayerUse(place.path, kind, place.scope, span, types[0], types[1])
        return value

    def _builtin(
        self,
        spec: Spec,
        cls: LayerClass,
        inputs: Any,
        frame: Frame,
        span: Span,
        place: _Place,
        method: Method | None,
    ) -> Any:
        name = method.name if method else "apply"
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        takes = [p for p in cls.applications[name].parameters if not p.keyword_only]
        what = place.what(cls.name)
        self._count(what, given, sum(p.required for p in takes), len(takes), span)
        for value in given:
            if not isinstance(value, Tensor):
                self.report.fail(
                    "E0409", f"{what} is applied to tensors, not to {describe(value)}", span
                )
        options, bound = dict(spec.options), dict(spec.bound)
        if method is not None and method.arguments:
            place_span = method.span or span
            more, _ = assign(cls.options, what, method.arguments, place_span, self.report)
            options.update(converted(cls.options, what, more, self.report))
            bound.update(more)
        values = tuple(t.value for t in given)
        context = _Context(self, place, what, span)
        run = getattr(spec.layer, name)
        return self.emit(
            frame, span, lambda: run(context, *values, **options), values, bound, place.scope
        )

    def _count(self, what: str, given: Sequence[Any], low: int, high: int, span: Span) -> None:
        if not low <= len(given) <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            self.report.fail(
                "E0409",
                f"{what} takes {wanted} input{'s' * (high != 1)} and gets {len(given)}",
                span,
                help="pick one first: `a, b = ...`"
                if len(given) > high
                else "write `(a, b) -> ...`",
            )

    def _shared(
        self, target: Shared | Method, inputs: Any, frame: Frame, span: Span, label: str | None
    ) -> Any:
        """Uses a shared layer: always at the place where it was declared."""
        method = target if isinstance(target, Method) else None
        shared = target.shared if isinstance(target, Method) else target
        if label is not None:
            self.report.fail(
                "E0312",
                f"`{shared.name}` is shared and has its place already",
                span,
                "cannot get another label",
                related=[(shared.span, "declared here")],
                help="leave the label out",
            )
        layer = shared.layer
        kind = layer.callee.name if isinstance(layer, Spec) else "chain"
        place = _Place(
            shared.name,
            shared.path,
            (*shared.scope, Scope(shared.name, kind, span)),
            shared.owner or shared,
            True,
        )
        return self._layer(layer, inputs, frame, span, place, method)

    def _function(
        self, target: Function | Bound, inputs: Any, frame: Frame, span: Span, label: str | None
    ) -> Any:
        function = target.function if isinstance(target, Bound) else target
        rest = target.arguments if isinstance(target, Bound) else ()
        if is_poisoned([a.value for a in rest]):
            raise FailedError
        first: tuple[Argument, ...] = (Argument(inputs, span),)
        if isinstance(inputs, tuple) and not _takes_tuple(function, inputs):
            first = tuple(Argument(i, span) for i in inputs)
        if label is not None:
            place = self._claim(frame, label, label, function.name, span, True)
            frame = Frame(
                frame.module, frame.definition, frame.path, place.scope, frame.depth, frame.env
            )
        return self.call_function(function, (*first, *rest), frame, span)


def _takes_tuple(function: Function, value: tuple[Any, ...]) -> bool:
    """True when the first parameter of a function is a list of tensors: `(a, b) -> concat(dim=1)`."""
    positional = function.signature.positional
    if not positional:
        return False
    try:
        convert(value, positional[0].hint)
    except MismatchError:
        return False
    return True


def _base(node: ast.StageTarget, target: Any) -> str:
    """What an unlabelled layer is called: the variable it came from, or its class in snake case."""
    name = node.callee if isinstance(node, ast.Call) else node
    if isinstance(name, ast.Name) and not isinstance(target, (LayerClass, BlockDef)):
        spelled = name.id
    elif isinstance(target, Spec):
        spelled = target.callee.name
    elif isinstance(target, (LayerClass, BlockDef)):
        spelled = target.name
    else:
        spelled = "chain"
    return snake(spelled)
