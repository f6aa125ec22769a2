"""`cond`: the choice that is made at run time.

Both bodies are elaborated, one after the other, each from the names before the choice. A name that has a value after
both is a result where the values differ; a name that only one of them made ends with it. Buffers that a body changes in
a training step are results as well: the body that does not run leaves them as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.frontend.regions import head_of
from graphc.frontend.scans import Scans
from graphc.frontend.scope import Frame
from graphc.frontend.values import POISON, Scanned, Tensor, Undecided, describe, is_poisoned
from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.ops import Cond
from graphc.ops.bodies import fresh
from graphc.syntax import ast

Choose = Callable[[Tensor, Tensor], Tensor]
_ABSENT = object()


@dataclass(frozen=True)
class _Branch:
    """What one body leaves: its names, the next values of buffers, and the first node it may have made."""

    env: dict[str, Any]
    updates: dict[str, Value]
    first: int


class _DifferError(Exception):
    """Two values of which a run cannot choose one."""

    def __init__(self, yes: Any, no: Any) -> None:
        super().__init__()
        self.yes, self.no = yes, no


class Conds(Scans):
    """Runs `cond`."""

    def _cond(self, node: ast.Cond, frame: Frame) -> None:
        predicate = self._predicate(node, frame)
        before, failed = dict(frame.env), frame.failed
        frame.failed = False
        yes = self._branch(node, node.body, frame)
        no = self._branch(node, node.orelse, frame)
        pairs: dict[
            tuple[Value, Value], str
        ] = {}  # the values to choose from, and what they are called
        both: dict[str, tuple[Any, Any]] = {}
        settled = not frame.failed
        frame.failed |= failed
        for name in dict.fromkeys((*yes.env, *no.env)):
            a, b = (side.env.get(name, _ABSENT) for side in (yes, no))
            if a is b is before.get(name, _ABSENT):
                continue
            if a is _ABSENT or b is _ABSENT:
                frame.inside[name] = node
                continue

            def collect(a: Tensor, b: Tensor, name: str = name) -> Tensor:
                pairs.setdefault((a.value, b.value), fresh(name, pairs.values()))
                return a

            try:
                settled &= not is_poisoned(_merged(a, b, collect))
                both[name] = (a, b)
            except _DifferError as differ:
                frame.env[name] = Undecided(node, differ.yes, differ.no)
                settled = False
        buffers = self._buffers(yes, no)
        for path, pair in buffers.items():
            pairs.setdefault(pair, fresh(path.rpartition(".")[2], pairs.values()))
        if settled and not pairs:
            self.report.fail(
                "E0807",
                "this cond chooses nothing",
                head_of(node),
                help="bind a name in both branches, or one that has a value before in one of them",
            )
        chosen = self._choice(node, predicate, (yes, no), pairs, frame) if pairs else {}
        for name, (a, b) in both.items():
            frame.env[name] = _merged(a, b, lambda a, b: chosen[a.value, b.value])
        self.updates.update((path, chosen[pair].value) for path, pair in buffers.items())

    def _predicate(self, node: ast.Cond, frame: Frame) -> Value:
        """What is chosen by. Reports E0805 for anything but one bool of the run."""
        value = self.value(node.test, frame)
        if not isinstance(value, Tensor):
            self.report.fail(
                "E0805",
                f"a cond chooses by a tensor, and this is {describe(value)}",
                node.test.span,
                help="what is known while the graph is built is for `if`",
            )
        if value.type.dtype is DType.BOOL and not value.type.rank:
            return value.value
        is_bool, several = value.type.dtype is DType.BOOL, bool(value.type.rank)
        test = "condition" if is_bool else "x > 0"
        help = f"`any({test})` or `all({test})` is one; `where({test}, a, b)` chooses by element"
        self.report.fail(
            "E0805",
            f"a cond chooses by one bool, not by {describe(value)}",
            node.test.span,
            related=[p for p in self.provenance.of(value.value) if p[0] != node.test.span],
            help=help if several else "compare it with something: `x > 0`",
        )

    def _branch(self, node: ast.Cond, body: ast.Body | ast.Cond | None, frame: Frame) -> _Branch:
        first, updates = len(self.b.nodes), dict(self.updates)
        with self.inside(frame, node) as env:
            frame.emitting = None
            if isinstance(body, ast.Cond):
                self.statement(body, frame)
            elif body is not None:
                self.stays(self.body(body, frame), node, body.span)
        changed, self.updates = self.updates, updates
        return _Branch(env, changed, first)

    def _buffers(self, yes: _Branch, no: _Branch) -> dict[str, tuple[Value, Value]]:
        """The next values of buffers that a body changes; what the other one leaves is what was there."""
        found = {}
        for path in dict.fromkeys((*yes.updates, *no.updates)):
            old = self.updates.get(path, self.declared[path][0].value)
            pair = (yes.updates.get(path, old), no.updates.get(path, old))
            if pair != (old, old):
                found[path] = pair
        return found

    def _choice(
        self,
        node: ast.Cond,
        predicate: Value,
        sides: tuple[_Branch, _Branch],
        pairs: dict[tuple[Value, Value], str],
        frame: Frame,
    ) -> dict[tuple[Value, Value], Tensor]:
        """Emits the op: for each pair of values the one that is chosen."""
        values = [[pair[i] for pair in pairs] for i in range(2)]
        read = [self.captured(v, (), s.first) for v, s in zip(values, sides, strict=True)]
        captures = sorted({*read[0], *read[1]})
        bodies = [
            self.cut("cond", (), captures, list(zip(pairs.values(), each, strict=True)))
            for each in values
        ]
        op, operands = Cond(*bodies), (predicate, *captures)
        found = self.emit(frame, head_of(node), lambda: self.b.emit(op, *operands), ())
        return dict(zip(pairs, found, strict=True))


def _merged(a: Any, b: Any, choose: Choose) -> Any:
    """What a name is after a choice: tensors are chosen, also within tuples; all else has to be equal.

    Raises _DifferError where it is not.
    """
    if is_poisoned((a, b)):
        return POISON
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.value == b.value:
            return a
        if a.type == b.type:
            return choose(a, b)
    elif isinstance(a, Scanned) and isinstance(b, Scanned):
        parts = [
            None if None in (x, y) else _merged(x, y, choose)
            for x, y in ((a.stacked, b.stacked), (a.last, b.last))
        ]
        if parts != [None, None]:
            return Scanned(a.name, *parts)
    elif isinstance(a, (tuple, list)) and type(a) is type(b) and len(a) == len(b):
        return type(a)(_merged(x, y, choose) for x, y in zip(a, b, strict=True))
    elif type(a) is type(b) and a == b:
        return a
    raise _DifferError(a, b)
