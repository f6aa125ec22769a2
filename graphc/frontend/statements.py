"""Statements: what each does to a frame. One that fails poisons the names it would have defined, and the next runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphc.autodiff import CHECKPOINT
from graphc.frontend.arithmetic import fix_help
from graphc.frontend.conds import Conds
from graphc.frontend.layers.base import LayerClass
from graphc.frontend.limits import LimitError
from graphc.frontend.names import unbound_dims, uses
from graphc.frontend.regions import word_of
from graphc.frontend.report import FailedError
from graphc.frontend.scope import Frame, joined
from graphc.frontend.store import initializer_text
from graphc.frontend.values import (
    POISON,
    BlockDef,
    Shared,
    Spec,
    SubChainValue,
    Tensor,
    describe,
    shown,
    tensors_in,
)
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Scope, Value
from graphc.ir.types import TensorType
from graphc.ops import Input
from graphc.source import Span
from graphc.syntax import ast


@dataclass(frozen=True)
class Returned:
    """The value of a `return` on its way out of a body."""

    value: Any


class Statements(Conds):
    """Runs bodies of models and blocks. `fixed` are dims given from outside, `outputs` what the model puts out."""

    fixed: Mapping[str, int]
    outputs: list[tuple[str, Value]]
    here: Span

    @abstractmethod
    def entered(self, name: str, frame: Frame) -> None:
        """Called after an input has come in."""

    @abstractmethod
    def poison_assigned(self, node: ast.Node, frame: Frame) -> None:
        """Everything a statement would have given a value is poison."""

    def body(self, body: ast.Body, frame: Frame) -> Returned | None:
        """Runs statements in order; what a `return` among them returned, else None."""
        for statement in body.statements:
            returned = self.statement(statement, frame)
            if returned is not None:
                return returned
        return None

    def statement(self, node: ast.Statement, frame: Frame) -> Returned | None:
        """Runs one statement. Raises LimitError when a limit is reached, and reports it here."""
        self.budget.step()
        self.here = node.span
        try:
            return _RUN[type(node)](self, node, frame)
        except FailedError:
            self.poison_assigned(node, frame)
            frame.failed = True
            ends = isinstance(node, ast.Return) and isinstance(frame.definition, ast.Block)
            return Returned(POISON) if ends else None
        except LimitError as limit:
            if not limit.reported:
                limit.reported = True
                self.report.error(limit.code, limit.message, node.span, help=limit.help)
            raise

    # ---- The edges of a model -----------------------------------------------------------------

    def _input(self, node: ast.Input, frame: Frame) -> None:
        if not isinstance(frame.definition, ast.Train):
            help = "a block declares `x: f32[...]` in its head"
            self._only(frame, node, ast.Model, "input", help)
        if node.name.id in frame.bound:
            self.report.error(
                "E0305",
                f"`{node.name.id}` is defined twice",
                node.name.span,
                "defined again here",
                related=[(frame.bound[node.name.id], "first defined here")],
            )
            return
        shape: list[DimLike] = []
        failure: FailedError | None = None
        for dim in node.type.dims:
            try:
                shape.append(self._declared(dim, frame))
            except FailedError as error:
                failure = error
        if failure is not None:
            raise failure
        kind = TensorType(DType(node.type.dtype), tuple(shape))
        frame.bound[node.name.id] = node.name.span
        op = Input(label=node.name.id, dtype=kind.dtype, shape=kind.shape)
        frame.env[node.name.id] = self.emit(frame, node.span, lambda: self.b(op), ())
        self.entered(node.name.id, frame)

    def _declared(self, dim: ast.Dim | ast.Dots, frame: Frame) -> DimLike:
        """A dimension of an input: a new named dim where its name is new."""
        if isinstance(dim, ast.Dots):
            self.report.fail(
                "E0218",
                "an input has a fixed number of dimensions",
                dim.span,
                help="name each of them",
            )
        if isinstance(dim.size, ast.Name) and dim.size.id not in frame.env:
            name = dim.size.id
            frame.bound[name] = dim.size.span
            if name in self.fixed:
                frame.env[name] = self.fixed[name]
                if self.fixed[name] < 1:
                    self.report.fail(
                        "E0510",
                        f"`{name}` is fixed to {self.fixed[name]}, and is at least 1",
                        dim.span,
                    )
            else:
                frame.env[name] = Dim.symbol(name)
                self.b.dims[name] = Bounds()
        elif not isinstance(dim.size, ast.Name):
            unbound_dims(dim.size, frame.env, frame.module, self.report)
        size = self.dim(dim.size, frame)
        if dim.bound is not None:
            self._bounded(dim, size, frame)
        return size

    def _bounded(self, dim: ast.Dim, size: DimLike, frame: Frame) -> None:
        """`T <= 512`: an upper bound of a named dim, or a check of a fixed one."""
        assert dim.bound is not None
        limit = self.value(dim.bound, frame)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            self.report.fail(
                "E0207", f"a bound is a positive integer, not {describe(limit)}", dim.bound.span
            )
        if isinstance(size, int):
            if size > limit:
                name = dim.size.id if isinstance(dim.size, ast.Name) else ""
                if name in self.fixed:
                    self.report.fail(
                        "E0510", f"`{name}` is fixed to {size}, above its bound {limit}", dim.span
                    )
                self.report.fail("E0221", f"{size} is above the bound {limit}", dim.span)
            return
        if not isinstance(dim.size, ast.Name) or size != Dim.symbol(dim.size.id):
            self.report.fail(
                "E0218", "only a named dim can have a bound", dim.span, help="bound the names in it"
            )
        old = self.b.dims[dim.size.id]
        high = limit if old.high is None else min(old.high, limit)
        self.b.dims[dim.size.id] = Bounds(old.low, high)

    def _output(self, node: ast.Output, frame: Frame) -> None:
        self._only(frame, node, ast.Model, "output", "a block ends with `return`")
        if node.value is not None:
            value = self.value(node.value, frame)
            values = value if isinstance(value, tuple) and len(node.names) > 1 else (value,)
            self._same_count(len(node.names), len(values), node.value.span, values)
            for name, each in zip(node.names, values, strict=True):
                frame.env[name.id] = each
        for name in node.names:
            value = self.value(name, frame)
            if not isinstance(value, Tensor):
                what = "several values" if isinstance(value, tuple) else describe(value)
                self.report.fail(
                    "E0404", f"the output `{name.id}` has to be one tensor and is {what}", name.span
                )
            if any(n == name.id for n, _ in self.outputs):
                self.report.fail("E0305", f"there are two outputs `{name.id}`", name.span)
            self.outputs.append((name.id, value.value))

    def _return(self, node: ast.Return, frame: Frame) -> Returned:
        self._only(frame, node, ast.Block, "return", "a model ends with `output y`")
        return Returned(self.evaluate(node.value, frame))

    def _only(self, frame: Frame, node: ast.Node, kind: type, word: str, help: str) -> None:
        """Reports E0515 for a statement that belongs into the other kind of definition."""
        if not isinstance(frame.definition, kind):
            place = "model" if kind is ast.Model else "block"
            self.report.fail("E0515", f"`{word}` belongs into a {place}", node.span, help=help)
        if frame.region is not None and word != "return":
            self.report.fail(
                "E0515",
                f"`{word}` cannot stand in a {word_of(frame.region)}",
                node.span,
                help=f"a model has the same {word}s in every run; write it outside",
            )

    # ---- Definitions --------------------------------------------------------------------------

    def _assign(self, node: ast.Assign, frame: Frame) -> None:
        self._unpack(node.target, self.evaluate(node.value, frame), frame, node.value.span)

    def _unpack(self, target: ast.Target, value: Any, frame: Frame, span: Span) -> None:
        if isinstance(target, ast.Name):
            frame.env[target.id] = value
            return
        if value is POISON:
            raise FailedError
        if not isinstance(value, (tuple, list)):
            self.report.fail(
                "E0518",
                f"{describe(value)} cannot be unpacked into {len(target.elements)} names",
                span,
            )
        self._same_count(len(target.elements), len(value), span, value)
        for element, each in zip(target.elements, value, strict=True):
            self._unpack(element, each, frame, span)

    def _same_count(self, names: int, values: int, span: Span, value: Any) -> None:
        if names != values:
            types = ", ".join(str(t.type) for t in tensors_in(value))
            self.report.fail(
                "E0518",
                f"{values} value{'s' * (values != 1)} for {names} name{'s' * (names != 1)}",
                span,
                f"gives {types}" if types else "",
            )

    def _shared_layer(self, node: ast.Shared, frame: Frame) -> None:
        target = self.target(node.layer, frame)
        if isinstance(target, (LayerClass, BlockDef)):
            target = self.make_spec(target, (), node.layer.span)
        if not isinstance(target, (Spec, SubChainValue)):
            self.report.fail(
                "E0308", f"`shared` names a layer, not {describe(target)}", node.layer.span
            )
        name = node.name.id
        if name in frame.labels:
            self.report.fail(
                "E0306",
                f"the label `{name}` is taken",
                node.name.span,
                related=[(frame.labels[name], "first layer of this name")],
            )
        frame.labels[name] = node.span
        path = joined(frame.path, name)
        frame.env[name] = Shared(name, path, target, node.span, frame.scope, frame.shared)

    def _param(self, node: ast.Param, frame: Frame) -> None:
        shape: list[int] = []
        for dim in node.type.dims:
            if isinstance(dim, ast.Dots):
                self.report.fail("E0218", "a parameter's dimensions are all written out", dim.span)
            unbound_dims(dim.size, frame.env, frame.module, self.report)
            size = self.dim(dim.size, frame)
            if not isinstance(size, int):
                self.report.fail(
                    "E0216",
                    f"the size of a parameter is fixed, and `{size}` is only known at run time",
                    dim.span,
                    help=fix_help(size),
                )
            shape.append(size)
        kind = TensorType(DType(node.type.dtype), tuple(shape))
        what = f"`{node.name.id}`"
        value = self.value(node.initializer, frame)
        init = self.guard(node.initializer.span, lambda: initializer_text(value, kind, what))
        path = joined(frame.path, node.name.id)
        frame.env[node.name.id] = self.parameter(
            path, kind, init, kind.dtype.is_float, frame.scope, frame.shared, node.span
        )

    # ---- Choice and repetition ----------------------------------------------------------------

    def _if(self, node: ast.If, frame: Frame) -> Returned | None:
        for branch in node.branches:
            if self.condition(branch.test, frame):
                return self.body(branch.body, frame)
        return self.body(node.orelse, frame) if node.orelse is not None else None

    def _for(self, node: ast.For, frame: Frame) -> Returned | None:
        items = self.value(node.iterable, frame)
        if not isinstance(items, (list, tuple, range)):
            tensor = isinstance(items, Tensor)
            self.report.fail(
                "E0512",
                f"a loop goes over a list or a range, not over {describe(items)}",
                node.iterable.span,
                help="a loop over the steps of a tensor is a `scan`" if tensor else None,
            )
        for item in items:
            self.budget.iteration()
            self._unpack(node.target, item, frame, node.iterable.span)
            returned = self.body(node.body, frame)
            if returned is not None:
                return returned
        return None

    def _assert(self, node: ast.Assert, frame: Frame) -> None:
        if self.condition(node.test, frame):
            return
        if isinstance(node.message, ast.Interpolation):
            message = self.text(node.message, frame)
        else:
            message = node.message.value if node.message else f"not true: {node.test.span.text}"
        names = dict.fromkeys(n.id for n in uses(node.test))
        known = {n: frame.env[n] for n in names if isinstance(frame.env.get(n), (int, float, Dim))}
        notes = [", ".join(f"{n} = {shown(v)}" for n, v in known.items())] if known else []
        self.report.fail("E0520", message, node.test.span, "does not hold", notes=notes)

    # ---- What is said elsewhere ---------------------------------------------------------------

    def _checkpoint(self, node: ast.Checkpoint, frame: Frame) -> Returned | None:
        """The body under a scope of its own: reverse mode computes again what lies in it."""
        label = frame.fresh("checkpoint")
        frame.labels[label] = node.span
        outside = frame.scope
        frame.scope = (*outside, Scope(label, CHECKPOINT, node.span))
        try:
            return self.body(node.body, frame)
        finally:
            frame.scope = outside

    def _misplaced(self, node: ast.Statement, frame: Frame) -> None:
        self.report.fail("E0515", "this belongs into another kind of body", node.span)


_RUN: dict[type[ast.Node], Callable[[Any, Any, Frame], Returned | None]] = {
    ast.Input: Statements._input,
    ast.Output: Statements._output,
    ast.Assign: Statements._assign,
    ast.Shared: Statements._shared_layer,
    ast.Param: Statements._param,
    ast.If: Statements._if,
    ast.For: Statements._for,
    ast.Assert: Statements._assert,
    ast.Return: Statements._return,
    ast.Scan: Conds._scan,
    ast.Cond: Conds._cond,
    ast.Checkpoint: Statements._checkpoint,
    ast.Emit: Conds._emit,
}
