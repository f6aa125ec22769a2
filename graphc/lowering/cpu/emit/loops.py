"""Loops, branches and tiles, and what is worth sharing among threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from graphc.lowering.cpu.emit.builder import Expr, Extent, builder
from graphc.lowering.cpu.emit.values import (
    bind,
    floor_div,
    i64,
    minimum_extent,
    product,
    remainder,
    static,
)

TASKS = "graphc_tasks"  # the runtime's, see artifact/spec.py


@contextmanager
def loop(extent: Extent, *, parallel: bool = False) -> Iterator[Extent]:
    """A loop over ``range(extent)``, yielding the index; an extent of 1 emits no loop."""
    if static(extent) == 1:
        yield 0
        return
    t = builder()
    with (t.parallel if parallel else t.serial)(i64(0), i64(extent)) as index:
        yield index


@contextmanager
def fused_loop(
    extents: Sequence[Extent], *, parallel: bool = False
) -> Iterator[tuple[Extent, ...]]:
    """One loop over the product of ``extents``, first slowest; yields one index for each.

    A parallel loop is cut into one contiguous run per thread, so the slowest extent is what the
    threads share out, and the faster ones what they share out when it is short.
    """
    with loop(product(extents), parallel=parallel) as flat:
        yield unflatten(flat, extents)


@contextmanager
def swinging_loop(extent: int, turn: Expr) -> Iterator[tuple[Expr, Expr]]:
    """A parallel loop over ``range(extent)``, one task for each thread, for what is repeated.

    Each task walks its part forwards where ``turn`` is 0 and backwards where it is 1, so that it begins with what it
    read last, and finds as much of that as its caches hold. Always forwards, a part that is a little larger than a
    cache is read from behind that cache each time. Yields the index and the next one of the task: after the last, that
    is the same, with which the next walk begins.
    """
    # A hint: the tasks of a loop that runs inside another all run on one thread.
    count = bind(builder().call_extern("int64", TASKS))
    with loop(count, parallel=True) as task:
        first = bind(floor_div(task * extent, count))
        last = bind(floor_div((task + 1) * extent, count) - 1)

        def index(i: Expr) -> Expr:
            return bind(first + i + turn * (last - first - 2 * i))

        with loop(last + 1 - first) as i:
            yield index(i), index(minimum_extent(i + 1, last - first))


def unflatten(flat: Extent, extents: Sequence[Extent]) -> tuple[Extent, ...]:
    """The indices of position ``flat`` in a row-major box of ``extents``."""
    indices: list[Extent] = []
    rest = flat
    for extent in reversed(extents[1:]):
        if static(extent) == 1 or static(rest) == 0:
            indices.append(0)
            continue
        indices.append(bind(builder().truncmod(i64(rest), i64(extent))))
        rest = bind(i64(floor_div(rest, extent)))
    indices.append(rest if extents else 0)
    return tuple(reversed(indices)) if extents else ()


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Runs the body only where a scalar ``condition`` holds."""
    t = builder()
    with t.If(condition), t.Then():
        yield


def branch(condition: Expr, true_body: Callable[[], None], false_body: Callable[[], None]) -> None:
    """Emits ``if (condition) true_body() else false_body()`` for a scalar condition."""
    t = builder()
    with t.If(condition):
        with t.Then():
            true_body()
        with t.Else():
            false_body()


def near_equal_tiles(extent: int, size: int) -> list[tuple[int, int, int]]:
    """Splits ``range(extent)`` into ``ceil(extent / size)`` tiles that differ by at most one.

    Returns up to two runs ``(start, count, tile)``: ``count`` tiles of ``tile`` elements each from
    ``start`` on. Nothing is masked and no tile is much smaller than the others.
    """
    if extent <= 0:
        return []
    number = -(-extent // size)
    base, larger = divmod(extent, number)
    runs = []
    if larger:
        runs.append((0, larger, base + 1))
    if number - larger:
        runs.append((larger * (base + 1), number - larger, base))
    return runs


def power_of_two_ladder(size: int) -> list[int]:
    """The powers of two below ``size``, falling: any remainder is a sum of some of them."""
    return [1 << p for p in reversed(range((size - 1).bit_length()))]


def tiles(extent: Extent, size: int, body: Callable[[Extent, int], None]) -> None:
    """Covers ``range(extent)`` by tiles of a size known to the generator.

    ``body(start, count)`` emits one tile. A static extent is split into near-equal tiles of at most
    ``size``. A symbolic one becomes a loop over full tiles and, for what is left, one conditional
    tile per power of two below ``size``.
    """
    known = static(extent)
    if known is not None:
        for start, count, tile in near_equal_tiles(known, size):
            with loop(count) as i:
                body(start + i * tile, tile)
        return
    with loop(floor_div(extent, size)) as i:
        body(i * size, size)
    remainder_tiles(extent, size, body)


def remainder_tiles(extent: Extent, size: int, body: Callable[[Extent, int], None]) -> None:
    """Covers the last ``extent % size`` elements of a symbolic extent by powers of two below ``size``."""
    ladder = power_of_two_ladder(size)
    if not ladder:
        return
    rest = bind(remainder(extent, size))
    done = extent - rest
    for tile in ladder:
        # The bits above `tile` are covered by the steps before, those below by the steps after.
        before = rest - remainder(rest, 2 * tile) if 2 * tile < size else i64(0)
        with when(remainder(rest, 2 * tile) >= i64(tile)):
            body(bind(done + before), tile)


def vector_pieces(width: int, lanes: int) -> list[tuple[int, int]]:
    """Cuts ``width`` elements into ``(start, lanes)``, powers of two of at most ``lanes``."""
    pieces = []
    start = 0
    while start < width:
        while lanes > width - start:
            lanes //= 2
        pieces.append((start, lanes))
        start += lanes
    return pieces


def along(extent: Extent, lanes: int, body: Callable[[Extent, int], None], unroll: int = 1) -> None:
    """Covers a contiguous axis by vectors: ``body(start, lanes)`` emits one.

    Full vectors in a loop (``unroll`` of them per iteration where static), then ever narrower ones
    down to scalars; nothing beyond the extent is touched.
    """
    known = static(extent)
    if known is None:
        tiles(extent, lanes, body)
        return
    full = known // lanes
    if full:
        step = unroll if full % unroll == 0 else 1
        with loop(full // step) as i:
            for u in range(step):
                body((i * step + u) * lanes, lanes)
    for start, piece in vector_pieces(known - full * lanes, lanes):
        body(full * lanes + start, piece)


# What a core is assumed to do per second when deciding about threads: careful guesses, since a
# wrong "serial" costs at most the microseconds that a parallel region would have cost anyway.
_FLOPS_PER_SECOND = 60e9
_BYTES_PER_SECOND = 12e9
_REGION_SECONDS = 5e-6
SHARED_FLOPS = int(_FLOPS_PER_SECOND * _REGION_SECONDS)
"""Arithmetic of a loop from which on threads should share it."""
_FUNCTION_FLOPS = (
    25  # of a function such as tanh or a sigmoid: on AVX2, 14 and 18 cycles for a vector
)


def work_of(flops: Extent, functions: int, results: Sequence[Extent]) -> Extent:
    """Arithmetic of a loop with that many functions, such as tanh, for each of its results: behind a small product they
    take as long as it.
    """
    return flops + product((_FUNCTION_FLOPS * functions, *results)) if functions else flops


def worth_threads(flops: Extent, bytes_moved: Extent = 0) -> bool:
    """Whether work should be shared among threads: when static, if it takes about 5 µs or more.

    A parallel region costs 1.3 µs hot and 3-10 µs after idling. Symbolic work counts as large.
    """
    known_flops, known_bytes = static(flops), static(bytes_moved)
    if known_flops is None or known_bytes is None:
        return True
    seconds = max(known_flops / _FLOPS_PER_SECOND, known_bytes / _BYTES_PER_SECOND)
    return seconds >= _REGION_SECONDS
