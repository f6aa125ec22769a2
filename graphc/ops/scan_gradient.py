"""Reverse mode through a scan: a scan in the other direction over what the forward steps saved.

The body of the backward scan is the reverse mode of the body. It reads, at each step, the sequences again, the carries
before the step (stacked, moved by one) and the saved results: everything but elementwise arithmetic and views, which
it computes again because reading it would cost as much. Its carries are the carries' cotangents. The cotangent of a
capture is a sum over the steps. Where that sum can be pushed through what is linear it leaves the loop: of all products
`x_t^T g_t` becomes one product over stacked x and g, contracted over time too, so that the weight gradient of a
recurrence is one large matrix product behind it (as in Appleyard et al. 2016, section 3.2.3).

The saved values come from a second forward scan with the same body and more results; the pass `loops` merges the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.ops.binary import Add
from graphc.ops.bodies import AGAIN, depending, extract, fresh
from graphc.ops.dot import DotGeneral
from graphc.ops.reduce import ReduceSum
from graphc.ops.reshape import Reshape
from graphc.ops.shape import BroadcastInDim, Concatenate, Pad, Slice, Transpose
from graphc.ops.source import Input
from graphc.ops.unary import Negate

if TYPE_CHECKING:
    from graphc.ops.scan import Scan


def scan_gradient(op: Scan, p: Pullback) -> tuple[Value | None, ...]:
    """The operands' cotangents. Raises what the gradient rules of the body's ops raise."""
    if op.length == 0:
        carries = p.cotangents[: op.carries]
        rest = len(p.operands) - op.sequences - op.carries
        return (*[None] * op.sequences, *carries, *[None] * rest)
    return _Backward(op, p).run()


class _Backward:
    """One scan on its way back. `work` holds the body, and behind it the reverse mode of one step."""

    def __init__(self, op: Scan, p: Pullback) -> None:
        self.op, self.p = op, p
        self.work = GraphBuilder(f"{op.body.name}_grad", p.b.dims)
        self.work.nodes = list(op.body.nodes)
        self.first = len(self.work.nodes)
        self.active = self._active()
        self.given: dict[Value, Value] = {}  # values of `work` that are stacked already, outside
        self.emitted: list[Value] = []  # values of `work` that the backward scan has to stack
        self.sums: list[Value] = []  # values of `work` that it has to sum up

    def _active(self) -> list[Value]:
        """The body's inputs whose cotangents are asked for, or that hand something of them from step to step."""
        op, body = self.op, self.op.body
        inputs = (*op.steps, *op.carried, *op.captured)
        smooth = {v for v in inputs if body.type_of(v).dtype.is_float}
        active = {v for v, wanted in zip(inputs, self.p.wanted, strict=True) if wanted} & smooth
        while True:
            reached = depending(body.nodes, active)
            more = {
                carry
                for carry, after in zip(op.carried, op.next, strict=True)
                if after.node in reached and carry in smooth
            }
            if more <= active:
                return [v for v in inputs if v in active]
            active |= more

    def run(self) -> tuple[Value | None, ...]:
        op, p, work = self.op, self.p, self.work
        carried = [i for i, v in enumerate(op.carried) if v in self.active]
        arriving = {
            i: self._input(f"grad_{op.labels[op.sequences + i]}", op.carried[i]) for i in carried
        }
        seeds: list[tuple[Value, Value | None]] = [(op.next[i], arriving[i]) for i in carried]
        for value, cotangent in zip(op.emitted, p.cotangents[op.carries :], strict=True):
            if cotangent is not None:
                seed = self._input(f"grad_out{len(self.given)}", value)
                self.given[seed] = cotangent
                seeds.append((value, seed))
        back = dict(zip(self.active, p.inside(work, seeds, self.active), strict=True))
        plans = {v: self._summed(back[v]) for v in op.captured if back.get(v) is not None}
        slices = [x for x in map(back.get, op.steps) if x is not None]
        self.emitted = list(dict.fromkeys((*slices, *self.emitted)))
        return self._loop(arriving, back, plans)

    def _input(self, label: str, like: Value) -> Value:
        """An input of the backward body, behind everything made so far."""
        taken = [str(n.op.label) for n in self.work.nodes if isinstance(n.op, Input)]
        type = self.work.type_of(like)
        return self.work(Input(fresh(label, taken), type.dtype, type.shape))

    # ---- Sums over the steps --------------------------------------------------------------------

    def _summed(self, value: Value | None) -> _Sum:
        """How to have the sum of a value over all steps: what of it the loop does, and what comes behind."""
        assert value is not None
        node = self.work.node_of(value)
        op, parts = node.op, node.operands
        if node.id < self.first or not self._steps_differ(value):
            pass
        elif isinstance(op, Add):
            return _Sum(op, tuple(self._summed(v) for v in parts))
        elif isinstance(op, (Transpose, Reshape, Negate)) or (
            isinstance(op, (BroadcastInDim, Pad)) and getattr(op, "value", 0.0) == 0.0
        ):
            return _Sum(op, (self._summed(parts[0]),))
        elif isinstance(op, ReduceSum):
            self._stack(parts[0])
            return _Sum(ReduceSum((0, *(a + 1 for a in op.axes))), stacks=parts)
        elif isinstance(op, DotGeneral) and all(map(self._steps_differ, parts)):
            for part in parts:
                self._stack(part)
            return _Sum(_over_time(op), stacks=parts)
        if value not in self.sums:
            self.sums.append(value)
        return _Sum(None, total=value)

    def _steps_differ(self, value: Value) -> bool:
        """Whether a value of the backward body is another one at each step."""
        same = set(self.op.captured)
        stack, seen = [value], set[Value]()
        while stack:
            v = stack.pop()
            if v in same or v in seen:
                continue
            seen.add(v)
            node = self.work.node_of(v)
            if isinstance(node.op, Input):
                return True
            stack += node.operands
        return False

    def _stack(self, value: Value) -> None:
        """Sees to it that a value is there for all steps at once."""
        if value not in self.emitted:
            self.emitted.append(value)

    # ---- The loop -------------------------------------------------------------------------------

    def _loop(
        self,
        arriving: dict[int, Value],
        back: dict[Value, Value | None],
        plans: dict[Value, _Sum],
    ) -> tuple[Value | None, ...]:
        op, p, b = self.op, self.p, self.p.b
        leaving = {i: back[op.carried[i]] for i in arriving}
        wanted = [v for v in (*leaving.values(), *self.sums, *self.emitted) if v is not None]
        self._save(wanted)
        # Stacks that exist outside are not made again.
        outside = {v: self.given[v] for v in self.emitted if v in self.given}
        self.emitted = [v for v in self.emitted if v not in outside]
        work = self.work
        totals = [self._input("total", v) for v in self.sums]
        added = [work(Add(), t, v) for t, v in zip(totals, self.sums, strict=True)]
        after = [v or self._zeros(work, op.carried[i]) for i, v in leaving.items()]
        body = self._body(list(arriving.values()), totals, [*after, *added, *self.emitted])
        sequences = len(self.given)
        backward = type(op)(
            body, op.length, sequences, len(after) + len(added), reverse=not op.reverse
        )
        ends = p.cotangents[: op.carries]
        starts = [self._start(ends[i], op.carried[i]) for i in arriving]
        starts += [p.zeros(work.type_of(v)) for v in self.sums]
        captures = p.operands[op.sequences + op.carries :]
        results = b.emit(backward, *self.given.values(), *starts, *captures)
        first = dict(zip(arriving, results, strict=False))
        sums = dict(zip(self.sums, results[len(after) :], strict=False))
        stacks = dict(zip(self.emitted, results[len(after) + len(added) :], strict=True)) | outside

        def finish(plan: _Sum) -> Value:
            if plan.op is None:
                assert plan.total is not None
                return sums[plan.total]
            operands = [finish(part) for part in plan.parts] or [stacks[v] for v in plan.stacks]
            return b(plan.op, *operands)

        found: list[Value | None] = []
        for v in op.steps:
            grad = back.get(v)
            found.append(None if grad is None else stacks[grad])
        found += [first.get(i) for i in range(op.carries)]
        return (*found, *(finish(plans[v]) if v in plans else None for v in op.captured))

    def _zeros(self, b: GraphBuilder, like: Value) -> Value:
        kind = b.type_of(like)
        scalar = arith.constant(b, 0.0, kind.dtype)
        return b(BroadcastInDim(kind.shape, ()), scalar) if kind.shape else scalar

    def _start(self, cotangent: Value | None, like: Value) -> Value:
        return self.p.zeros(self.work.type_of(like)) if cotangent is None else cotangent

    def _body(
        self, arriving: Sequence[Value], totals: Sequence[Value], outputs: Sequence[Value]
    ) -> Graph:
        labels: list[str] = []

        def label(value: Value) -> str:
            op = self.work.node_of(value).op
            name = op.label if isinstance(op, Input) else f"saved_{op.name}"
            labels.append(fresh(name, labels))
            return labels[-1]

        inputs = [(label(v), v) for v in (*self.given, *arriving, *totals, *self.op.captured)]
        named = [(f"out{i}", v) for i, v in enumerate(outputs)]
        return extract(self.work.name, self.work.dims, self.work.nodes, inputs, named)

    # ---- What the forward steps save --------------------------------------------------------------

    def _save(self, wanted: Sequence[Value]) -> None:
        """Finds what the backward steps read of the forward ones, and has it stacked by another forward scan."""
        op, p = self.op, self.p
        # What is stacked anyway is read, not computed again: emitted values, and carries that are read.
        saved, read = self._reads(wanted, set(op.emitted))
        after = {op.next[i] for i, v in enumerate(op.carried) if v in read}
        saved, read = self._reads(wanted, {*op.emitted, *after})
        used = [i for i, v in enumerate(op.carried) if v in read]
        stacks = [*op.emitted]
        stacks += [v for v in dict.fromkeys(saved) if v not in stacks]
        stacks += [v for v in dict.fromkeys(op.next[i] for i in used) if v not in stacks]
        outputs = [*op.body.outputs[: op.carries]]
        outputs += [(f"stack{i}", v) for i, v in enumerate(stacks)]
        body = op.body
        wider = replace(op, body=Graph(body.name, body.dims, body.nodes, _distinct(outputs)))
        made = p.results if len(stacks) == len(op.emitted) else p.b.emit(wider, *p.operands)
        stacked = dict(zip(stacks, made[op.carries :], strict=True))
        given = {v: x for v, x in zip(op.steps, p.operands, strict=False) if v in read}
        given |= {v: stacked[v] for v in saved if v not in given}
        for i in used:
            start = p.operands[op.sequences + i]
            given[op.carried[i]] = self._moved(start, stacked[op.next[i]])
        self.given = given | self.given

    def _reads(
        self, wanted: Sequence[Value], stacked: set[Value]
    ) -> tuple[list[Value], set[Value]]:
        """Results of the forward body to save, and its inputs, that the backward step needs."""
        steps = depending(self.op.body.nodes, (*self.op.steps, *self.op.carried))
        saved: list[Value] = []
        read: set[Value] = set()
        seen: set[Value] = set()
        stack = list(reversed(wanted))
        while stack:
            v = stack.pop()
            if v in seen:
                continue
            seen.add(v)
            node = self.work.node_of(v)
            if node.id < self.first and isinstance(node.op, Input):
                read.add(v)
            elif node.id in steps and (v in stacked or node.op.pattern not in AGAIN):
                saved.append(v)
            else:
                stack += reversed(node.operands)
        return sorted(saved), read

    def _moved(self, start: Value, stack: Value) -> Value:
        """The carry before each step, from the carry after each."""
        op, b = self.op, self.p.b
        kind: TensorType = b.type_of(stack)
        lead = arith.reshape(b, start, (1, *kind.shape[1:]))
        if op.length == 1:
            return lead
        low = 1 if op.reverse else 0
        limit = (op.length if op.reverse else op.length - 1, *kind.shape[1:])
        rest = b(Slice((low, *(0,) * (kind.rank - 1)), limit, (1,) * kind.rank), stack)
        return b(Concatenate(0), rest, lead) if op.reverse else b(Concatenate(0), lead, rest)


class _Sum:
    """A sum over the steps: `op` of sums or of stacks, or (no op) the carry that adds up `total`."""

    def __init__(
        self,
        op: Add
        | Transpose
        | Reshape
        | Negate
        | BroadcastInDim
        | Pad
        | ReduceSum
        | DotGeneral
        | None,
        parts: tuple[_Sum, ...] = (),
        stacks: tuple[Value, ...] = (),
        total: Value | None = None,
    ) -> None:
        self.op, self.parts, self.stacks, self.total = op, parts, stacks, total


def _over_time(op: DotGeneral) -> DotGeneral:
    """The product of stacked operands, contracted over time as well."""
    lhs_batch, rhs_batch = (tuple(i + 1 for i in dims) for dims in (op.lhs_batch, op.rhs_batch))
    left, right = ((0, *(i + 1 for i in d)) for d in (op.lhs_contract, op.rhs_contract))
    return DotGeneral(lhs_batch, rhs_batch, left, right)


def _distinct(outputs: Sequence[tuple[str, Value]]) -> list[tuple[str, Value]]:
    """Outputs under labels that differ."""
    result: list[tuple[str, Value]] = []
    for label, value in outputs:
        result.append((fresh(label, [n for n, _ in result]), value))
    return result


__all__ = ["scan_gradient"]
