"""Attention in one kernel: `softmax(q k^T * scale + mask) v` for a block of queries at a time.

The scores are kept transposed, ``[key][query]``, with queries in the lanes of vectors. Then both
products read keys and values element by element from where they lie, in whatever strides, and nothing
is copied but the block's own queries; the softmax needs no sum across lanes; and a block's scores stay
in the nearest caches. Keys come in blocks with a running maximum and sum (Milakov and Gimelshein 2018),
or all at once where they are few. Keys behind a causal block's last query are never looked at.
"""

from __future__ import annotations

from graphc.lowering.cpu.emit import (
    Extent,
    Finish,
    View,
    bind,
    branch,
    ceil_div,
    i64,
    local,
    loop,
    static,
    worth_threads,
)
from graphc.lowering.cpu.families.attention.block import Block, room
from graphc.lowering.cpu.families.attention.spec import AttentionSpec, Mask, choose_vectors
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop

__all__ = ["AttentionSpec", "choose_vectors", "emit_attention"]


def emit_attention(
    spec: AttentionSpec,
    target: CpuTarget,
    q: View,
    k: View,
    v: View,
    mask: Mask | None,
    finish: Finish,
) -> None:
    """Emits the loops into the open kernel.

    Args:
        spec: what is computed.
        target: the instruction set.
        q, k, v: read at ``(*batch, query, i)``, ``(*batch, key, i)``, ``(*batch, key, j)``.
        mask: applied to the scores.
        finish: receives results at ``(*batch, query, j)``. Queries that see nothing give zeros.
    """
    lanes, vectors = target.lanes(spec.dtype), choose_vectors(spec, target)
    size, queries = vectors * lanes, static(spec.queries)

    def task(indices: tuple[Extent, ...]) -> None:

        *batch, number = indices
        memory = local(room(spec, lanes, vectors), spec.dtype)
        first = bind(i64(number * size))

        def block(width: int, start: Extent, last: bool) -> None:
            work = View(memory, spec.dtype, (1,))
            Block(spec, target, work, width, batch, start, last).emit(q, k, v, mask, finish)

        def whole() -> None:
            block(vectors, first, False)

        if queries is None:

            def singles() -> None:
                left = bind(i64(spec.queries) - first)
                with loop(ceil_div(left, lanes)) as i:
                    block(1, bind(first + i * lanes), True)

            branch(first + size <= i64(spec.queries), whole, singles)
            return
        full, rest = divmod(queries, size)
        if not rest:
            whole()
        elif not full:
            block(-(-rest // lanes), first, rest % lanes != 0)
        else:
            branch(
                i64(number) < i64(full),
                whole,
                lambda: block(-(-rest // lanes), first, rest % lanes != 0),
            )

    shared_loop(
        (*spec.batch, ceil_div(spec.queries, size)),
        task,
        threads=worth_threads(spec.flops),
        flops=spec.flops,
    )
