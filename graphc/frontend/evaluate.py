"""Expressions: what a piece of syntax is worth in a frame.

An expression that fails has reported why and raises FailedError. A name whose definition failed is poison: using it
raises FailedError without another report. Both sides of an operator and all arguments of a call are evaluated before
any failure goes on, so that independent mistakes are found in one go.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from graphc.diagnostics import nearest
from graphc.frontend import arithmetic, subscript
from graphc.frontend.builtins import BUILTINS
from graphc.frontend.calls import Calls
from graphc.frontend.ended import ended, undecided
from graphc.frontend.layers.base import LayerClass
from graphc.frontend.names import undefined
from graphc.frontend.report import FailedError, RejectError
from graphc.frontend.scope import Frame, assigned
from graphc.frontend.values import (
    POISON,
    Method,
    Scanned,
    Shared,
    Spec,
    SubChainValue,
    Tensor,
    Undecided,
    describe,
    is_poisoned,
    shown,
)
from graphc.ir.dim import Dim, DimLike
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import FloorDivide, Negate, Remainder, arith, functional
from graphc.source import Span
from graphc.syntax import ast

_TENSOR: dict[str, Callable[[GraphBuilder, Any, Any], Value]] = {
    "+": arith.add,
    "-": arith.subtract,
    "*": arith.multiply,
    "/": arith.divide,
    "//": lambda b, x, y: arith.binary_op(b, FloorDivide(), x, y),
    "%": lambda b, x, y: arith.binary_op(b, Remainder(), x, y),
    "**": lambda b, x, y: functional.power(b, x, y),
}


class Expressions(Calls):
    """Evaluates expressions into values, emitting ops for tensors."""

    @abstractmethod
    def chain(self, node: ast.Chain, frame: Frame) -> Any:
        """The value of `x -> A -> B`."""

    # ---- Entry points -------------------------------------------------------------------------

    def evaluate(self, node: ast.Node, frame: Frame) -> Any:
        """The value of an expression; poison only for a name that is poison. Raises FailedError."""
        self.budget.step()
        value = _VISIT[type(node)](self, node, frame)
        if isinstance(value, (list, tuple)) and not isinstance(node, ast.Name):
            self._measure(value, node.span)
        return value

    def _measure(self, value: Any, span: Span) -> None:
        """Reports E0502 for a list that holds too much, through all its levels; counts as that many steps."""
        pending, count = [value], 0
        while pending and count <= self.limits.length:
            item = pending.pop()
            count += 1
            if isinstance(item, (list, tuple)):
                pending += item[: self.limits.length - count + 1]
        self.budget.step(count)
        if count > self.limits.length:
            self.report.fail(
                "E0502", f"this list holds more than {self.limits.length:,} elements", span
            )

    def value(self, node: ast.Node, frame: Frame) -> Any:
        """The value of an expression. Raises FailedError also for poison."""
        value = self.evaluate(node, frame)
        if is_poisoned(value):
            raise FailedError
        return value

    def attempt(self, node: ast.Node, frame: Frame) -> Any:
        """The value of an expression, or poison where it fails."""
        try:
            return self.evaluate(node, frame)
        except FailedError:
            return POISON

    def condition(self, node: ast.Expr, frame: Frame) -> bool:
        """The value of a condition. Reports E0516 for anything but true and false."""
        value = self.value(node, frame)
        if isinstance(value, bool):
            return value
        help = "compare it with something: `x != 0`, `x != none`"
        if isinstance(value, Tensor):
            help = (
                "it is known at run time only: `where(condition, a, b)` chooses each element then, "
                "`cond condition { ... }` one of two branches"
            )
        self.report.fail(
            "E0516",
            f"a condition has to be true or false, not {describe(value)}",
            node.span,
            help=help,
        )

    def dim(self, node: ast.Expr, frame: Frame) -> DimLike:
        """The value of an expression that is a dimension; `/` divides exactly here. Raises FailedError."""
        size = self._size(node, frame)
        if isinstance(size, int) and size < 0:
            self.report.fail(
                "E0207", f"a dimension cannot be negative, and this is {size}", node.span
            )
        return size

    def _size(self, node: ast.Expr, frame: Frame) -> DimLike:
        """A dimension or a part of one, which may be negative."""
        if isinstance(node, ast.Binary) and node.op != "@":
            left, right = self._size(node.left, frame), self._size(node.right, frame)
            op = "//" if node.op == "/" else node.op
            result = self.guard(node.span, lambda: arithmetic.binary(op, left, right, self.limits))
            if node.op == "/" and result * right != left:
                self.report.fail(
                    "E0209" if isinstance(left, int) and isinstance(right, int) else "E0219",
                    f"{left} does not divide by {right}"
                    if isinstance(left, int)
                    else f"`{left}` may not divide by {right}",
                    node.span,
                )
        else:
            result = self.value(node, frame)
        if isinstance(result, bool) or not isinstance(result, (int, Dim)):
            self.report.fail(
                "E0207", f"a dimension is an integer, not {describe(result)}", node.span
            )
        return result

    # ---- Names and literals -------------------------------------------------------------------

    def _name(self, node: ast.Name, frame: Frame) -> Any:
        for table in (frame.env, frame.module.names, BUILTINS):
            if node.id in table:
                value = table[node.id]
                if isinstance(value, Undecided):
                    undecided(self.report, node, value, self.provenance)
                return value
        if node.id in frame.inside:
            ended(self.report, node, frame.inside[node.id])
        if any(name.id == node.id for name in assigned(frame.definition.body)):
            self.report.fail("E0301", f"`{node.id}` has no value yet", node.span, "used too early")
        undefined(self.report, node, [*frame.env, *frame.module.names, *BUILTINS])
        raise FailedError

    def _literal(self, node: Any, frame: Frame) -> Any:
        return node.value

    def _nothing(self, node: ast.Nothing, frame: Frame) -> None:
        return None

    def text(self, node: ast.Interpolation, frame: Frame) -> str:
        """A string with its values filled in. Raises FailedError."""
        parts: list[str] = []
        for part in node.parts:
            if isinstance(part, str):
                parts.append(part)
            else:
                value = self.value(part, frame)
                parts.append(value if isinstance(value, str) else shown(value))
            if sum(map(len, parts)) > self.limits.length:
                self.report.fail(
                    "E0502", f"this text has more than {self.limits.length:,} characters", node.span
                )
        return "".join(parts)

    def _items(self, node: ast.List | ast.Tuple, frame: Frame) -> Any:
        values = [self.attempt(e, frame) for e in node.elements]
        return values if isinstance(node, ast.List) else tuple(values)

    # ---- Operators ----------------------------------------------------------------------------

    def _unary(self, node: ast.Unary, frame: Frame) -> Any:
        if node.op == "not":
            return not self.condition(node.operand, frame)
        value = self.value(node.operand, frame)
        if isinstance(value, Tensor):
            if node.op == "+":
                return value
            inputs = (value.value,)
            return self.emit(frame, node.span, lambda: self.b(Negate(), *inputs), inputs)
        if isinstance(value, bool) or not isinstance(value, (int, float, Dim)):
            self.report.fail("E0512", f"`{node.op}` does not work on {describe(value)}", node.span)
        return -value if node.op == "-" else value

    def _binary(self, node: ast.Binary, frame: Frame) -> Any:
        left, right = self.attempt(node.left, frame), self.attempt(node.right, frame)
        if is_poisoned((left, right)):
            raise FailedError
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            return self._tensors(node, left, right, frame)
        if node.op == "@":
            self.report.fail(
                "E0512",
                f"`@` multiplies tensors, not {describe(left)} and {describe(right)}",
                node.span,
            )
        return self.guard(node.span, lambda: arithmetic.binary(node.op, left, right, self.limits))

    def _operand(self, value: Any, other: Any, node: ast.Node) -> Any:
        """A tensor or plain number as an operand beside another one. Raises FailedError (E0512)."""
        if isinstance(value, Tensor):
            return value.value
        if isinstance(value, Dim):
            return arith.dim_scalar(self.b, value, other.type.dtype)
        if isinstance(value, (int, float)):
            return value
        self.report.fail(
            "E0512", f"{describe(other)} cannot be combined with {describe(value)}", node.span
        )

    def _tensors(self, node: ast.Binary | ast.Compare, left: Any, right: Any, frame: Frame) -> Any:
        def run() -> Value:
            x, y = self._operand(left, right, node), self._operand(right, left, node)
            if isinstance(node, ast.Compare):
                return arith.compare(self.b, arithmetic.COMPARISONS[node.op], x, y)
            if node.op == "@":
                if not isinstance(x, Value) or not isinstance(y, Value):
                    raise RejectError("`@` multiplies two tensors; `*` scales one", code="E0512")
                return functional.matmul(self.b, x, y)
            return _TENSOR[node.op](self.b, x, y)

        inputs = tuple(t.value for t in (left, right) if isinstance(t, Tensor))
        return self.emit(frame, node.span, run, inputs)

    def _compare(self, node: ast.Compare, frame: Frame) -> Any:
        left, right = self.attempt(node.left, frame), self.attempt(node.right, frame)
        if is_poisoned((left, right)):
            raise FailedError
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            if left is None or right is None:
                return node.op == "!="  # `mask != none` asks whether an optional tensor is there
            return self._tensors(node, left, right, frame)
        return self.guard(node.span, lambda: arithmetic.compare(node.op, left, right, self.b.dims))

    def _logical(self, node: ast.Logical, frame: Frame) -> bool:
        if self.condition(node.left, frame) is (node.op == "or"):
            return node.op == "or"
        return self.condition(node.right, frame)

    def _conditional(self, node: ast.Conditional, frame: Frame) -> Any:
        return self.evaluate(node.then if self.condition(node.test, frame) else node.orelse, frame)

    # ---- Access -------------------------------------------------------------------------------

    def _attribute(self, node: ast.Attribute, frame: Frame) -> Any:
        value = self.value(node.value, frame)
        name = node.name.id
        known: list[str] = []
        if isinstance(value, Shared):
            target = value.layer.callee if isinstance(value.layer, Spec) else value.layer
            known = list(target.cls.methods) if isinstance(target, LayerClass) else []
            if name in known:
                return Method(value, name, (), node.span)
        elif isinstance(value, Scanned):
            return self._scanned(value, node)
        elif isinstance(value, Tensor):
            known = ["shape", "dtype"]
            if name in known:
                return value.type.shape if name == "shape" else value.type.dtype
        near = nearest(name, known)
        self.report.fail(
            "E0302",
            f"{describe(value)} has no `{name}`",
            node.name.span,
            help=f"did you mean `{near}`?"
            if near
            else f"it has {', '.join(f'`{k}`' for k in known)}"
            if known
            else None,
        )

    def _scanned(self, value: Scanned, node: ast.Attribute) -> Tensor:
        """`h.stacked` and `h.last` after a scan. Reports E0302."""
        name = node.name.id
        found = {"stacked": value.stacked, "last": value.last}.get(name)
        if found is not None:
            return found
        help = {
            "stacked": f"`emit {value.name}` in the scan stacks it",
            "last": f"only carries have a last value; `{value.name}.stacked[-1]` is the last that was emitted",
        }
        self.report.fail(
            "E0302",
            f"the scanned `{value.name}` has no `{name}`",
            node.name.span,
            help=help.get(name, "it has `stacked` and `last`"),
        )

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Any:
        value = self.value(node.value, frame)
        items = [self._item(i, frame) for i in node.items]
        if is_poisoned(items):
            raise FailedError
        if isinstance(value, Tensor):
            inputs = (value.value,)
            return self.emit(
                frame, node.span, lambda: subscript.index(self.b, value.value, items), inputs
            )
        if not isinstance(value, (list, tuple, range, str)):
            self.report.fail("E0512", f"{describe(value)} has no elements to pick", node.span)
        (item, *rest) = items
        if isinstance(item, subscript.Range) and not rest:
            start, stop = item.start, item.stop
            if not isinstance(start, Dim) and not isinstance(stop, Dim) and item.step != 0:
                return value[slice(start, stop, item.step)]
        if rest or isinstance(item, bool) or not isinstance(item, int):
            self.report.fail(
                "E0213", f"{describe(value)} takes one integer as subscript", node.span
            )
        if not -len(value) <= item < len(value):
            self.report.fail(
                "E0213", f"index {item} is out of range for {describe(value)}", node.span
            )
        return value[item]

    def _item(self, node: ast.Node, frame: Frame) -> Any:
        if isinstance(node, ast.Dots):
            return subscript.Ellipsis()
        if isinstance(node, ast.Slice):
            parts = [None if p is None else self.value(p, frame) for p in (node.start, node.stop)]
            step = 1 if node.step is None else self.value(node.step, frame)
            for part, place in zip((*parts, step), (node.start, node.stop, node.step), strict=True):
                plain = isinstance(part, (int, Dim)) and not isinstance(part, bool)
                if part is not None and (not plain or (part is step and not isinstance(step, int))):
                    assert place is not None
                    self.report.fail(
                        "E0213", f"a slice is made of integers, not of {describe(part)}", place.span
                    )
            return subscript.Range(parts[0], parts[1], step)
        value = self.value(node, frame)
        if isinstance(value, Tensor):
            if not value.type.dtype.is_int:
                self.report.fail(
                    "E0206",
                    f"a tensor in a subscript holds integer indices, not {value.type.dtype}",
                    node.span,
                    help="`where(mask, x, y)` chooses by a bool tensor",
                )
            return value.value
        if value is None or (isinstance(value, (int, Dim)) and not isinstance(value, bool)):
            return value
        self.report.fail("E0213", f"{describe(value)} is no subscript", node.span)

    # ---- Dispatch -----------------------------------------------------------------------------

    def _dots(self, node: ast.Node, frame: Frame) -> Any:
        self.report.fail("E0213", "`...` only stands in subscripts and shapes", node.span)

    def _subchain(self, node: ast.SubChain, frame: Frame) -> SubChainValue:
        return SubChainValue(node, frame)

    def _chain(self, node: ast.Chain, frame: Frame) -> Any:
        return self.chain(node, frame)

    def _interpolation(self, node: ast.Interpolation, frame: Frame) -> str:
        return self.text(node, frame)


_VISIT: dict[type[ast.Node], Callable[[Any, Any, Frame], Any]] = {
    ast.Name: Expressions._name,
    ast.Int: Expressions._literal,
    ast.Float: Expressions._literal,
    ast.Bool: Expressions._literal,
    ast.String: Expressions._literal,
    ast.Nothing: Expressions._nothing,
    ast.Interpolation: Expressions._interpolation,
    ast.Unary: Expressions._unary,
    ast.Binary: Expressions._binary,
    ast.Compare: Expressions._compare,
    ast.Logical: Expressions._logical,
    ast.Conditional: Expressions._conditional,
    ast.Call: Expressions.call,
    ast.Attribute: Expressions._attribute,
    ast.Subscript: Expressions._subscript,
    ast.Dots: Expressions._dots,
    ast.List: Expressions._items,
    ast.Tuple: Expressions._items,
    ast.SubChain: Expressions._subchain,
    ast.Chain: Expressions._chain,
}
