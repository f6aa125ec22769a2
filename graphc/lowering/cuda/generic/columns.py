"""Reductions over all leading dimensions: statistics of a batch, gradients of biases and norms, whole sums.

Neighbouring threads have neighbouring columns and others their rows, so that memory is read as it lies. Where columns
are few, the rows are shared among blocks as well: their parts go to memory and a second launch adds them in order. A
reduction that needs another's result (a variance its mean) goes over the rows again. What follows is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from graphc.ir.dim import DimLike, product
from graphc.ir.op import Pattern
from graphc.lowering.cuda.accumulate import LONG, OPERATION, Accumulator, finished
from graphc.lowering.cuda.emit import (
    Expr,
    call,
    cast,
    const,
    dtype_of,
    i64,
    named,
    pure,
    select,
    when,
)
from graphc.lowering.cuda.emitter import CudaEmitter, Run
from graphc.lowering.cuda.generic.columns_plan import AHEAD, THREADS, Plan, make_plan
from graphc.lowering.cuda.io import Kernel, KernelIO, Stage
from graphc.lowering.generic.index import Space, flatten, unflatten
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.trace import checked_nodes, expanded
from graphc.ops import Fusion
from graphc.ops.reduce import Reduce

__all__ = ["select_columns"]

_FEW = 64  # rows that one thread may as well go over alone
_AROUND = (Pattern.SOURCE, Pattern.ELEMENTWISE, Pattern.INDEX)
_C = {"float32": "float", "float64": "double", "int32": "int", "int64": "int64_t"}


def select_columns(fusion: Fusion) -> Kernel | None:
    """A kernel for a fusion of reductions over the same leading dimensions, or None for others and for few rows."""
    body = expanded(fusion.body)
    nodes = [n for n in body.nodes if n.op.pattern is Pattern.REDUCE]
    if not nodes or not all(isinstance(n.op, Reduce) for n in nodes) or checked_nodes(body):
        return None
    shape = body.type_of(nodes[0].operands[0]).shape
    rank = len(shape) - nodes[0].types[0].rank
    for node in nodes:
        op, operand = node.op, body.type_of(node.operands[0])
        assert isinstance(op, Reduce)
        if operand.shape != shape or sorted(op.axes) != list(range(rank)):
            return None
    others = [n for n in body.nodes if n.op.pattern is not Pattern.REDUCE]
    if any(n.op.pattern not in _AROUND and not n.op.replicated for n in others):
        return None
    kept = tuple(d for d in shape[rank:] if isinstance(d, int))
    if len(kept) < len(shape) - rank or 0 in shape:
        return None
    if any(body.type_of(v).shape != kept for _, v in body.outputs):
        return None
    rows = product(shape[:rank])
    if isinstance(rows, int) and rows < _FEW:
        return None
    return _kernel(make_plan(body, nodes, shape[:rank], kept))


def _kernel(plan: Plan) -> Kernel:
    def stage(emit: Callable[[_Columns], None], run: int, parts: int) -> Stage:
        return Stage(
            lambda io: emit(_Columns(plan, io, run)), (plan.blocks(run), parts, 1), THREADS
        )

    if plan.parts == 1:
        return Kernel("columns", (stage(_Columns.whole, plan.run, 1),))
    stages = []
    for level in range(1, plan.levels + 1):
        stages.append(stage(lambda c, level=level: c.part(level), plan.run, plan.parts))  # type: ignore[misc]
        stages.append(stage(lambda c, level=level: c.add(level), 1, 1))  # type: ignore[misc]
    return Kernel("columns", tuple(stages), plan.scratch)


class _Columns:
    """What a thread does in one launch: `run` neighbouring columns, or the last ones where those are beyond the end."""

    def __init__(self, plan: Plan, io: KernelIO, run: int) -> None:
        self.plan, self.io, self.run = plan, io, run
        self.e = e = CudaEmitter(Space(plan.body.dims), io)
        groups = plan.columns // run
        block = e.bound(io.thread.block[0], 0, plan.blocks(run) - 1)
        thread = e.bound(io.thread.index, 0, THREADS - 1)
        self.lane = e.bound(e.expr(thread % plan.lanes), 0, plan.lanes - 1)
        self.row = e.bound(e.expr(thread // plan.lanes), 0, THREADS // plan.lanes - 1)
        place = named(e.expr(block * plan.lanes + self.lane))
        last = const(groups - 1, dtype_of(place))
        self.valid = named(place <= last)
        self.group = e.bound(select(self.valid, place, last), 0, groups - 1)
        self.columns = [self._column(j) for j in range(run)]
        self.inliners = [Inliner(plan.body, e) for _ in range(run)]

    def _column(self, j: int) -> tuple[DimLike, ...]:
        """The index of the thread's j-th column."""
        if not self.plan.kept:
            return ()
        sizes = [*self.plan.kept[:-1], self.plan.kept[-1] // self.run]
        if len(sizes) == 1:
            return (self.group * self.run + j,)
        if j == 0:
            digits = unflatten(self.group, sizes)
            self._digits = [
                self.e.bound(self.e.expr(i), 0, d - 1) for i, d in zip(digits, sizes, strict=True)
            ]
        *outer, inner = self._digits
        return (*outer, inner * self.run + j)

    # The launches

    def whole(self) -> None:
        """All passes, and what follows."""
        for level in range(1, self.plan.levels + 1):
            for number, results in self._pass(level, 0).items():
                for j, value in enumerate(results):
                    self._give(number, j, value)
        self._finish()

    def part(self, level: int) -> None:
        """A block's part of the rows, in one pass."""
        self._known(level)
        part = self.e.bound(self.io.thread.block[1], 0, self.plan.parts - 1)
        found = self._pass(level, part)
        with self._first_row():
            for number, results in found.items():
                for j, value in enumerate(results):
                    self._put(self.plan.place(number, part, self.group * self.run + j), value)

    def add(self, level: int) -> None:
        """Adds the parts of one pass; after the last one, computes what follows."""
        self._known(level)
        e, rows = self.e, THREADS // self.plan.lanes
        found: dict[int, Expr] = {}
        for number, sum in enumerate(self.plan.sums):
            if sum.level != level:
                continue
            into = sum.accumulator(False)
            with e.serial(-(-self.plan.parts // rows)) as step:
                place = e.expr(step * rows + self.row)
                with when(place < const(self.plan.parts, dtype_of(place))), e.scope():
                    part = e.bound(place, 0, self.plan.parts - 1)
                    into.add(self._get(self.plan.place(number, part, self.group), into.dtype))
            found[number] = self._over_rows(into)
        if level == self.plan.levels:
            for number, value in found.items():
                self._give(number, 0, value)
            self._finish()
            return
        with self._first_row():
            for number, value in found.items():
                self._put(self.plan.place(number, self.plan.parts, self.group), value)

    # Their parts

    def _known(self, level: int) -> None:
        """Gives what earlier launches have found."""
        for number, sum in enumerate(self.plan.sums):
            if sum.level < level:
                dtype = sum.accumulator(False).dtype
                for j in range(self.run):
                    place = self.plan.place(number, self.plan.parts, self.group * self.run + j)
                    self._give(number, j, self._get(place, dtype))

    def _pass(self, level: int, part: DimLike) -> dict[int, list[Expr]]:
        """Goes over a part of the rows: what each sum of a level comes to, by its number."""
        e, plan = self.e, self.plan
        rows, threads = product(plan.rows), THREADS // plan.lanes
        step = threads * AHEAD
        steps = (rows + (step * plan.parts - 1)) // (step * plan.parts)
        long = not isinstance(steps, int) or steps * AHEAD > LONG
        sums = {n: s for n, s in enumerate(plan.sums) if s.level == level}
        into = {n: [s.accumulator(long) for _ in range(self.run)] for n, s in sums.items()}
        last = rows - 1
        with e.serial(steps) as i:
            first = (part * steps + i) * step + self.row
            terms: list[tuple[Accumulator, Expr]] = []
            for ahead in range(AHEAD):
                place = named(e.expr(first + ahead * threads))
                end = named(cast(e.expr(last), dtype_of(place)))
                valid = named(place <= end)
                row = e.bound(select(valid, place, end), 0, last)
                at = unflatten(row, plan.rows)
                symbol = self.group.names[0] if not isinstance(self.group, int) else ""
                with e.neighbours(Run(symbol, self.run)):
                    for n, s in sums.items():
                        for j, accumulator in enumerate(into[n]):
                            index = (*at, *self.columns[j])
                            value = self.inliners[j].at(s.node.operands[0], index)
                            value = cast(e.lift(e.cast(value, s.work)), accumulator.dtype)
                            term = named(select(valid, value, accumulator.start))
                            terms.append((accumulator, term))
            for accumulator, term in terms:
                accumulator.add(term)
        return {n: [self._over_rows(a) for a in found] for n, found in into.items()}

    def _over_rows(self, into: Accumulator) -> Expr:
        """What the threads of a column come to."""
        operation = OPERATION[into.operation]
        name = f"graphc_over_rows<{self.plan.lanes}, {THREADS}, {operation}>"
        return named(pure(name, into.dtype, into.result()))

    def _give(self, number: int, j: int, value: Expr) -> None:
        """Notes what a reduction is at a column."""
        sum = self.plan.sums[number]
        result = finished(sum.kind, value, sum.work)
        result = self.e.cast(self.e.wrap(result), sum.node.types[0].dtype)
        if not isinstance(result, (int, bool)) and hasattr(result, "ty"):
            result = named(result)
        self.inliners[j].give(sum.node.values[0], self.columns[j], result)

    def _first_row(self) -> AbstractContextManager[None]:
        """Once for each column that there is."""
        import tvm.tirx as tx

        row = self.e.expr(self.row)
        return when(tx.And(self.valid, tx.EQ(row, const(0, dtype_of(row)))))

    def _finish(self) -> None:
        """Computes and stores the results."""
        body, e = self.plan.body, self.e
        with self._first_row(), e.scope():
            for j, index in enumerate(self.columns):
                for slot, (_, value) in enumerate(body.outputs):
                    result = self.inliners[j].at(value, index)
                    place = flatten(index, body.type_of(value).shape)
                    e.write(self.io.results[slot], place, result)

    def _put(self, place: DimLike, value: Expr) -> None:
        assert self.io.scratch is not None
        to = self.io.scratch.address(i64(self.e.wide(place)))
        call(f"graphc_write<{_C[dtype_of(value)]}>", to, value)

    def _get(self, place: DimLike, dtype: str) -> Expr:
        assert self.io.scratch is not None
        source = self.io.scratch.address(i64(self.e.wide(place)))
        return named(pure(f"graphc_read<{_C[dtype]}>", dtype, source))
