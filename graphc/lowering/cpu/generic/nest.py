"""Writing the loop nest that a schedule describes.

One parallel loop over the outer loops (and over stretches of the vectorised one where there is
little else to share out), everything that is the same for the inner loops computed between, then
the inner loops. A condition that holds for a whole vector loop is asked once before it; one that
changes along it cuts it into pieces: padding costs nothing inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

from graphc.ir.dim import Dim, DimLike, product, substitute
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.lowering.cpu.cell import Kept
from graphc.lowering.cpu.emit import (
    SHARED_FLOPS,
    View,
    bind,
    branch,
    fused_loop,
    i64,
    local,
    static,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.expr import TirEmitter
from graphc.lowering.cpu.generic.hoist import checkable, storable
from graphc.lowering.cpu.generic.schedule import Schedule, schedule, split_points
from graphc.lowering.cpu.generic.transpose import emit_turned
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.generic import index as ix
from graphc.lowering.generic.axes import shared_events
from graphc.lowering.generic.index import Condition, Space, flatten
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.trace import checked_nodes

_STRETCH = 4096  # elements of one loop that a thread takes at a time
_FEW = 8  # fewer outer steps than this are not enough to share out
_ROW = 4096  # elements of a row that may wait on the stack
_MAX_VERSIONS = 4  # copies of a loop for conditions asked before it, per condition chain


def emit_nest(body: Graph, target: CpuTarget, io: KernelIO) -> None:
    """Emits loops that compute every output of a body, outputs of one shape together."""
    by_shape: dict[tuple[DimLike, ...], list[int]] = {}
    for slot, (_, value) in enumerate(body.outputs):
        by_shape.setdefault(body.type_of(value).shape, []).append(slot)
    for shape, slots in by_shape.items():
        if 0 in shape:
            continue
        Nest(body, slots, target, io).emit()


class Nest:
    """The loops for outputs of one shape."""

    def __init__(self, body: Graph, slots: Sequence[int], target: CpuTarget, io: KernelIO) -> None:
        self.body, self.slots, self.io = body, slots, io
        self.outputs = [body.outputs[s][1] for s in slots]
        self.plan: Schedule = schedule(body, self.outputs, target)
        faults = {node.id: i for i, node in enumerate(checked_nodes(body))}
        self.e = TirEmitter(
            Space(body.dims),
            io,
            target,
            reductions=self.plan.trace.reductions,
            fault_ids=faults,
        )
        self.inliner = Inliner(body, self.e)
        self.at: dict[int, DimLike] = {}  # loop -> its current position
        self.parallel = False

    def emit(self) -> None:
        """Writes the nest.

        Where the work depends on named dims and is small for small ones, there are two: while
        running, a serial one takes over below what is worth waking threads for.
        """
        work = self.plan.work
        if isinstance(work, int) or self.plan.least >= SHARED_FLOPS:
            self._loops(self.plan.least >= SHARED_FLOPS)
        else:
            large = self.e.expr(work) >= i64(SHARED_FLOPS)
            branch(large, lambda: self._loops(True), lambda: self._loops(False))

    def _loops(self, parallel: bool) -> None:
        self.parallel = parallel
        self.at.clear()
        with self.e.scope():
            self._shape()

    def _shape(self) -> None:
        plan = self.plan
        if plan.turned is not None:
            emit_turned(self)
            return
        if plan.vector is not None and plan.vector in plan.outer:
            self.stretches(plan.vector, plan.widths[0], self._columns)
        elif self._shares_last():
            assert plan.vector is not None
            wide = plan.widths[0]
            self.stretches(plan.vector, max(wide, _STRETCH // wide * wide), self._inner_stretch)
        else:
            with self.outer(plan.outer):
                self._inside(lambda: self._inner(plan.inner))

    def _shares_last(self) -> bool:
        """Whether the vectorised loop itself must be shared among threads."""
        plan = self.plan
        if plan.row or not self.parallel or plan.vector is None:
            return False
        steps = product(plan.axes.sizes[g] for g in plan.outer)
        last = plan.axes.sizes[plan.vector]
        few = not isinstance(steps, int) or steps < _FEW
        return few and (not isinstance(last, int) or last >= 2 * _STRETCH)

    # Outer loops

    @contextmanager
    def outer(self, loops: Sequence[int], extra: DimLike = 1) -> Iterator[DimLike]:
        """One loop over the product of `loops`, and over `extra` more steps inside; yields the step."""
        sizes = [*(self.plan.axes.sizes[g] for g in loops), extra]
        steps = product(sizes)
        alone = self._few_reductions(steps)
        parallel = self.parallel and steps != 1 and not alone
        self.e.alone = alone
        extents = [s if isinstance(s, int) else bind(self.e.expr(s)) for s in sizes]
        with fused_loop(extents, parallel=parallel) as indices, self.e.scope():
            for g, size, i in zip(loops, sizes, indices, strict=False):
                self.at[g] = self._position(i, size)
            yield self._position(indices[-1], extra)

    def _few_reductions(self, steps: DimLike) -> bool:
        """Whether threads must share each reduction, because there are too few of them."""
        plan = self.plan
        reduces = bool(plan.trace.reductions) and not plan.row
        return (
            self.parallel
            and reduces
            and plan.vector is None
            and isinstance(steps, int)
            and steps < _FEW
        )

    def _position(self, i: object, size: DimLike) -> DimLike:
        known = static(i)
        return known if known is not None else self.e.bound(i, 0, size - 1)

    def stretches(self, loop: int, stretch: int, body: Callable[[DimLike, DimLike], None]) -> None:
        """Shares a loop out in stretches, with all other outer ones: `body(first, steps)` emits one."""
        from tvm.script.ir_builder import tirx as t

        plan, e = self.plan, self.e
        size = plan.axes.sizes[loop]
        others = [g for g in plan.outer if g not in (loop, plan.vector)]
        if isinstance(size, int):
            stretch = min(stretch, size)
        whole = size // stretch
        rest = size - whole * stretch
        with self.outer(others, whole if rest == 0 else whole + 1) as step:
            first = step * stretch
            if rest == 0:
                body(first, stretch)
            elif whole == 0:
                body(first, rest)
            else:
                tested = ix.compare("ge", size - first, stretch)
                assert isinstance(tested, Condition)
                with t.If(e.condition(tested)):
                    with t.Then(), e.scope(), e.space.assuming(tested):
                        body(first, stretch)
                    with t.Else(), e.scope():
                        body(whole * stretch, rest)

    # Inside

    def _columns(self, first: DimLike, count: DimLike) -> None:
        """The vectorised loop is outside: all inner loops run in vectors, or there are none."""
        vector = self.plan.vector
        assert vector is not None

        def one(at: DimLike, lanes: int) -> None:
            self.at[vector] = at
            self._inside(lambda: self._inner(self.plan.inner))

        self.e.sweep(first, count, self._fitting(count), one)

    def _inner_stretch(self, first: DimLike, count: DimLike) -> None:
        self._inside(lambda: self._pieces(first, count))

    def _fitting(self, count: DimLike) -> tuple[int, ...]:
        widths = self.plan.widths
        if isinstance(count, int):
            return tuple(w for w in widths if w <= count)
        return widths

    def _inside(self, inner: Callable[[], None]) -> None:
        """Computes what the inner loops share, then runs them."""
        plan = self.plan
        inside = {plan.symbols[g] for g in plan.inner if plan.axes.sizes[g] != 1}
        if plan.inner:
            self._keep()
            env = self._env()
            for event in shared_events(plan.trace, plan.symbols, inside):
                self.inliner.at(event.value, [substitute(i, env) for i in event.index])
                for kept in self.e.kept.values():
                    kept.complete = kept.complete or kept.started
            for value, index in checkable(plan, inside):
                self.inliner.at(value, [substitute(i, env) for i in index])
        inner()
        self.e.kept.clear()

    def _env(self) -> Mapping[str, DimLike]:
        """The current positions of the loops, by their symbols in the trace."""
        return {self.plan.symbols[g]: at for g, at in self.at.items()}

    def _keep(self) -> None:
        """Lets a value that several passes need wait: in the output's own memory, or on the stack."""

        if not self.plan.row or len(self.outputs) != 1:
            return
        (slot,) = self.slots
        in_place = self.io.in_place[slot] if self.io.in_place else None
        found = storable(self.body, self.plan, self.outputs[0])
        if found is None:
            return
        type = self.body.type_of(found.value)
        if in_place is None and type == self.body.type_of(self.outputs[0]):
            self.e.kept[found.value] = Kept(self.io.results[slot], type.shape)
        elif found.length is not None and found.length <= _ROW and type.dtype is DType.F32:
            row = local(found.length, "float32")
            start = self.e.expr(substitute(found.first, self._env()))
            self.e.kept[found.value] = Kept(View(row, "float32", (1,), -start), type.shape)

    def _inner(self, loops: Sequence[int]) -> None:
        """The inner loops: the vectorised one last and cut into pieces, the others serial."""
        if not loops:
            self.store()
            return
        if loops[0] == self.plan.vector:
            self._pieces(0, self.plan.axes.sizes[loops[0]])
            return
        with self.e.serial(self.plan.axes.sizes[loops[0]]) as i:
            self.at[loops[0]] = i
            self._inner(loops[1:])

    def _pieces(self, first: DimLike, count: DimLike) -> None:
        """A stretch of the vectorised loop, in vectors."""
        vector = self.plan.vector
        assert vector is not None

        def one(at: DimLike, lanes: int) -> None:
            self.at[vector] = at
            self.store()

        self.pieces(
            vector,
            first,
            count,
            lambda start, size: self.e.sweep(start, size, self._fitting(size), one),
        )

    def pieces(
        self, loop: int, first: DimLike, count: DimLike, run: Callable[[DimLike, DimLike], None]
    ) -> None:
        """A stretch of an innermost loop, in versions for what is known before it, cut where a
        condition changes along it: `run(first, steps)` emits each piece.
        """
        plan, e = self.plan, self.e
        symbol = Dim.symbol(plan.symbols[loop])
        env = {plan.symbols[g]: at for g, at in self.at.items() if g not in (loop, plan.vector)}
        fixed = env.keys() | plan.trace.dims
        before: list[Condition] = []
        along: list[Condition] = []
        for condition in plan.trace.conditions:
            known = tuple(t for t in condition.tests if set(t.value.names) <= fixed)
            for tests, into in ((known, before), (condition.tests, along)):
                moved = ix.replaced(Condition(tests), env)
                if isinstance(moved, Condition) and moved not in into:
                    into.append(moved)

        def cut() -> None:
            open = [c for c in along if e.space.decide(c) is None]
            points = split_points(open, symbol, count, e.space) if first == 0 else [0, count]
            for start, end in pairwise(points):
                run(first + start, end - start)

        self._versions(before, _MAX_VERSIONS, cut)

    def _versions(
        self, conditions: Sequence[Condition], left: int, run: Callable[[], None]
    ) -> None:
        """Asks conditions that are open, one after another, and runs a version for each outcome."""
        from tvm.script.ir_builder import tirx as t

        e = self.e
        open = next((c for c in conditions if e.space.decide(c) is None), None)
        if open is None or left == 0:
            run()
            return
        with t.If(e.condition(open)):
            with t.Then(), e.scope(), e.space.assuming(open):
                self._versions(conditions, left - 1, run)
            with t.Else(), e.scope(), e.space.assuming(open, False):
                self._versions(conditions, left - 1, run)

    def index(self) -> tuple[DimLike, ...]:
        """The output index at the current loop positions."""
        return self.plan.axes.index([self.at.get(g, 0) for g in range(len(self.plan.symbols))])

    def views(self) -> list[View]:
        """The memory of the outputs."""
        return [self.io.results[s] for s in self.slots]

    def store(self) -> None:
        """Computes all outputs at the current positions, then stores them."""
        at = self.index()
        with self.e.scope():
            values = [self.inliner.at(v, at) for v in self.outputs]
            for value, out, view in zip(values, self.outputs, self.views(), strict=True):
                self.e.write(view, flatten(at, self.body.type_of(out).shape), value)
