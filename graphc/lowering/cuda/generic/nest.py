"""The kernel of any body of ops: every element of the outputs pulled through the body by one thread.

How the loops of an output are dealt out, read off a trace (`lowering/generic/axes.py`):

- elements: a thread computes a run of neighbours, loaded and stored with one instruction where memory allows;
- reductions that run along memory: a team of threads (a warp or a block) shares each of them;
- rows (softmax, norms), whose reductions are the same for many outputs: a team computes the reductions, then the row;
- rows along which memory does not run: a thread has a row to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from graphc.ir.dim import DimLike, product, substitute
from graphc.ir.graph import Graph, Value
from graphc.lowering.cuda.accumulate import SHORT, Team
from graphc.lowering.cuda.emit import VECTOR_BYTES, Array, Expr, cast, const, dtype_of, when
from graphc.lowering.cuda.emitter import CudaEmitter, Run, divides
from graphc.lowering.cuda.io import Kernel, KernelIO, Stage
from graphc.lowering.generic.axes import Axes, shared_events, split_loops, watched_axes
from graphc.lowering.generic.index import Space, flatten, unflatten
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.trace import Trace, checked_nodes, expanded

__all__ = ["nest"]

_THREADS = 256  # of a block of independent threads
_WARP = 32
_SEVERAL = 128  # threads of a block of several teams
_LARGEST = 512  # threads of a team
_MANY = 1 << 16  # threads that keep a GPU busy
_READS = 8  # of a body that is written out
_SHARED = 64  # terms from which on a team shares a reduction


@dataclass(frozen=True)
class Form:
    """How the loops of outputs of one shape are dealt out to threads.

    Attributes:
        axes, symbols, trace: the loops, and what one element does; see `generic/axes.py`.
        outer: loops whose steps go to different teams.
        inner: loops of one team.
        team: threads of a team: one, a warp, or a whole block.
        run: neighbours along the last outer loop that a thread computes.
    """

    axes: Axes
    symbols: tuple[str, ...]
    trace: Trace
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    team: int
    run: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return _THREADS if self.team == 1 else max(self.team, _SEVERAL)

    @property
    def units(self) -> DimLike:
        """Steps that are dealt out."""
        sizes = [self.axes.sizes[g] for g in self.outer]
        if self.run > 1:
            sizes[-1] = sizes[-1] // self.run
        return product(sizes)

    @property
    def blocks(self) -> DimLike:
        """Blocks of the grid."""
        each = self.threads // self.team
        return (self.units + (each - 1)) // each


def nest(body: Graph) -> Kernel:
    """The kernel of a body in which every op computes its elements; outputs of one shape share a launch."""
    body = expanded(body)
    by_shape: dict[tuple[DimLike, ...], list[int]] = {}
    for slot, (_, value) in enumerate(body.outputs):
        by_shape.setdefault(body.type_of(value).shape, []).append(slot)
    stages = [_stage(body, slots) for shape, slots in by_shape.items() if 0 not in shape]
    return Kernel("nest", tuple(stages))


def _stage(body: Graph, slots: Sequence[int]) -> Stage:
    outputs = [body.outputs[s][1] for s in slots]
    form = choose(body, outputs)

    def emit(io: KernelIO) -> None:
        _Nest(body, slots, form, io).emit()

    return Stage(emit, (form.blocks, 1, 1), form.threads)


# ------------------------------------------------------------------------------------------- choice


def choose(body: Graph, outputs: Sequence[Value]) -> Form:
    """The form for outputs of one shape."""
    axes, _, trace, symbols = watched_axes(body, outputs)
    outer, inner, row = split_loops(trace, symbols)
    everything = tuple(range(len(symbols)))
    terms = _terms(trace)
    along = _along(trace)
    if row:
        team = _team(terms, product(axes.sizes[g] for g in outer)) if along else 1
        return Form(axes, symbols, trace, outer, inner, team, 1)
    if along and (not isinstance(terms, int) or terms >= _SHARED):
        team = _team(terms, product(axes.sizes))
        return Form(axes, symbols, trace, everything, (), team, 1)
    run = 1 if _long(trace) else _run(body, outputs, axes, trace, symbols)
    return Form(axes, symbols, trace, everything, (), 1, run)


def _long(trace: Trace) -> bool:
    """Whether reductions are too long to be written out: those over a window of a few elements are not.

    Where one contains another, what is inside would be written out too often.
    """
    totals = [product(reduction.extents) for reduction in trace.reductions.values()]
    known = [t for t in totals if isinstance(t, int)]
    if not totals:
        return False
    return len(known) < len(totals) or sum(known) > SHORT or len(trace.reads) > _READS


def _terms(trace: Trace) -> DimLike:
    """Terms of the longest reduction."""
    totals = [product(reduction.extents) for reduction in trace.reductions.values()]
    known = [t for t in totals if isinstance(t, int)]
    unknown = [t for t in totals if not isinstance(t, int)]
    return unknown[0] if unknown else max(known, default=1)


def _along(trace: Trace) -> bool:
    """Whether most reductions run along memory."""
    along = [r.along and not r.tested for r in trace.reductions.values()]
    return sum(along) * 2 > len(along)


def _team(terms: DimLike, teams: DimLike) -> int:
    """Threads that share a reduction."""
    few = isinstance(teams, int) and teams * _WARP < _MANY
    if not isinstance(terms, int):
        return _LARGEST if few else _SEVERAL
    most = 64 if few else 1024  # terms that a warp does alone
    if terms <= most:
        return _WARP
    team = _SEVERAL
    while team < _LARGEST and terms > most * (team // _WARP):
        team *= 2
    return team


def _run(
    body: Graph, outputs: Sequence[Value], axes: Axes, trace: Trace, symbols: tuple[str, ...]
) -> int:
    """Neighbours that a thread computes: what one instruction moves of the widest type."""
    if not symbols:
        return 1
    last = axes.sizes[-1]
    run = _widest(body)
    size = product(axes.sizes)
    while run > 1 and (not divides(run, last) or (isinstance(size, int) and size < run * _MANY)):
        run //= 2
    moved = [r for r in trace.reads if trace.stride(r.position, symbols[-1]) == 1]
    return run if moved or not trace.reads else 1


def _widest(body: Graph) -> int:
    types = [*(n.types[0] for n in body.inputs), *(body.type_of(v) for _, v in body.outputs)]
    return VECTOR_BYTES // max((t.dtype.bytes for t in types if t.rank), default=VECTOR_BYTES)


# ------------------------------------------------------------------------------------------- code


class _Nest:
    def __init__(self, body: Graph, slots: Sequence[int], form: Form, io: KernelIO) -> None:
        self.body, self.form, self.io = body, form, io
        self.slots = slots
        self.outputs = [body.outputs[s][1] for s in slots]
        faults = {node.id: i for i, node in enumerate(checked_nodes(body))}
        self.e = CudaEmitter(Space(body.dims), io, fault_ids=faults)
        self.e.unrolled = form.run > 1
        self.inliner = Inliner(body, self.e)
        self.at: dict[int, DimLike] = {}

    def emit(self) -> None:
        """Writes what a thread does."""
        form, e = self.form, self.e
        each = form.threads // form.team
        block = e.bound(self.io.thread.block[0], 0, form.blocks - 1)
        thread = e.bound(self.io.thread.index, 0, form.threads - 1)
        place = e.bound(e.expr(block * each + thread // form.team), 0, form.blocks * each - 1)
        with ExitStack() as stack:
            if not (isinstance(form.units, int) and form.units % each == 0):
                stack.enter_context(when(e.expr(place) < self._limit(place, form.units)))
            unit = e.bound(e.expr(place), 0, form.units - 1)
            group = self._spread(unit)
            if form.team > 1:
                lane = e.bound(e.expr(thread - thread // form.team * form.team), 0, form.team - 1)
                self._with_team(Team(e, form.team, lane, _widest(self.body)))  # type: ignore[arg-type]
            else:
                self._share()
                if form.inner:
                    self._alone(form.inner)
                else:
                    self._elements(group)

    def _limit(self, place: DimLike, units: DimLike) -> Expr:
        return cast(self.e.expr(units), dtype_of(self.e.expr(place)))

    def _spread(self, unit: DimLike) -> DimLike:
        """Sets the outer loops' positions; returns the last one in runs."""
        form, e = self.form, self.e
        rest, group = unit, unit
        for n, g in reversed(list(enumerate(form.outer))):
            size = form.axes.sizes[g]
            last = g == form.outer[-1]
            if last and form.run > 1:
                size = size // form.run
            if n == 0:
                digit = rest
            else:
                digit = e.bound(e.expr(rest - rest // size * size), 0, size - 1)
                left = product(form.axes.sizes[o] for o in form.outer[:n])
                rest = e.bound(e.expr(rest // size), 0, left - 1)
            if last:
                group = digit
            self.at[g] = digit
        return group

    def _share(self) -> None:
        """Computes what the inner loops share, and reductions that others contain."""
        form = self.form
        if form.run > 1:
            return
        inside = {form.symbols[g] for g in form.inner}
        env = {form.symbols[g]: at for g, at in self.at.items()}
        for event in shared_events(form.trace, form.symbols, inside):
            self.inliner.at(event.value, [substitute(i, env) for i in event.index])

    def _with_team(self, team: Team) -> None:
        form, e = self.form, self.e
        with e.together(team):
            self._share()
            if not form.inner:
                values = self._values()
                with when(e.expr(team.lane) < const(1, "int32")):
                    self._store(values)
                return
        sizes = [form.axes.sizes[g] for g in form.inner]

        def run(positions: Sequence[DimLike], valid: Expr | None) -> None:
            at = [unflatten(p, sizes) for p in positions]
            with ExitStack() as stack:
                if valid is not None:
                    stack.enter_context(when(valid))
                    stack.enter_context(e.scope())
                self._run(at, form.inner)

        team.each(product(sizes), run)

    def _alone(self, loops: Sequence[int]) -> None:
        if not loops:
            with self.e.scope():
                self._store(self._values())
            return
        with self.e.serial(self.form.axes.sizes[loops[0]]) as i:
            self.at[loops[0]] = i
            self._alone(loops[1:])

    def _elements(self, group: DimLike) -> None:
        run = self.form.run
        if run == 1:
            self._store(self._values())
            return
        last = self.form.outer[-1]
        (symbol,) = group.names  # type: ignore[union-attr]
        with self.e.neighbours(Run(symbol, run)):
            self._run([[group * run + j] for j in range(run)], [last])

    def _run(self, at: Sequence[Sequence[DimLike]], loops: Sequence[int]) -> None:
        """Computes neighbours, then stores them, together where they lie so."""
        values, indices = [], []
        for position in at:
            self.at.update(zip(loops, position, strict=True))
            values.append(self._values())
            indices.append(self._index())
        e, count = self.e, len(at)
        for n, slot in enumerate(self.slots):
            type, memory = self.body.type_of(self.outputs[n]), self.io.results[slot]
            places = [flatten(index, type.shape) for index in indices]
            dense = all(places[j] == places[0] + j for j in range(count))
            if count > 1 and dense and divides(count, places[0]):
                array = Array(count, type.dtype)
                for j in range(count):
                    array.store(const(j, "int32"), e.lift(values[j][n]))
                memory.put(e.expr(places[0]), array, self.io.alignment)
            else:
                for j in range(count):
                    e.write(memory, places[j], values[j][n])

    def _index(self) -> tuple[DimLike, ...]:
        loops = range(len(self.form.symbols))
        return self.form.axes.index([self.at.get(g, 0) for g in loops])

    def _values(self) -> list[Expr]:
        index = self._index()
        return [self.inliner.at(v, index) for v in self.outputs]

    def _store(self, values: Sequence[Expr]) -> None:
        index = self._index()
        for value, slot, output in zip(values, self.slots, self.outputs, strict=True):
            position = flatten(index, self.body.type_of(output).shape)
            self.e.write(self.io.results[slot], position, value)
