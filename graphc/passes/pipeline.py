"""The pipeline: every pass, in order. The verifier runs after each.

canonical → folded and simplified → channels last → transposes together → borders → kernels
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.ir.types import TensorType
from graphc.ir.verify import verify
from graphc.ops import Attention, AttentionGradient, LayerNorm, LogSoftmax, MaxPoolGradient, Softmax
from graphc.passes.batch_norm import fold_batch_norm
from graphc.passes.bodies import everywhere
from graphc.passes.branches import join, settle
from graphc.passes.canonicalise import canonicalise
from graphc.passes.columns import merge_columns
from graphc.passes.constants import fold_constants
from graphc.passes.cse import eliminate_common_subexpressions
from graphc.passes.dead_code import remove_dead_code
from graphc.passes.decompose import Keep, decompose
from graphc.passes.dilated_input import fill_holes
from graphc.passes.even_channels import even_channels
from graphc.passes.fuse import fuse
from graphc.passes.halo import make_halos
from graphc.passes.layout import channels_last
from graphc.passes.loops import lighten, merge
from graphc.passes.read_back import read_back
from graphc.passes.simplify import simplify
from graphc.passes.split import split_products
from graphc.passes.tidy import tidy
from graphc.passes.transposes import sink_transposes
from graphc.passes.updates import merge_updates


@dataclass(frozen=True)
class Pass:
    """A named step: a valid graph in, a valid graph out, the very same one if nothing changed."""

    name: str
    run: Callable[[Graph], Graph]


@dataclass(frozen=True)
class Step:
    """What one pass did."""

    name: str
    seconds: float
    nodes_before: int
    nodes_after: int
    changed: bool


@dataclass
class Report:
    """The passes that ran, in order."""

    steps: list[Step] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Time spent in all passes and their verification."""
        return sum(step.seconds for step in self.steps)


WIDEST_HEAD = 128
"""Elements of a query, key or value of which kernels for GPUs take attention's gradient whole."""

Observer = Callable[[str, Graph], None]
"""Called after each pass with its name and result."""


def row_kernels(op: Op, operands: Sequence[TensorType]) -> bool:
    """The composites that kernels take whole: normalisations over the innermost dimensions, attention, max pooling's
    gradient channels last."""
    if isinstance(op, (Softmax, LogSoftmax)):
        return op.axis == operands[0].rank - 1
    if isinstance(op, Attention):
        return operands[0].dtype in (DType.F32, DType.F64) and _regular(operands) is not None
    if isinstance(op, MaxPoolGradient):
        return _whole_windows(op, operands) and operands[0].dtype in (DType.F32, DType.F64)
    return isinstance(op, LayerNorm)


def device_kernels(op: Op, operands: Sequence[TensorType]) -> bool:
    """What kernels for GPUs take whole: the same, of every type for attention and windows, and attention's gradient."""
    if isinstance(op, Attention):
        return _regular(operands) is not None
    if isinstance(op, AttentionGradient):
        widest = _regular(operands)
        return operands[0].dtype is not DType.F64 and widest is not None and widest <= WIDEST_HEAD
    if isinstance(op, MaxPoolGradient):
        return _whole_windows(op, operands)
    return row_kernels(op, operands)


def _whole_windows(op: MaxPoolGradient, operands: Sequence[TensorType]) -> bool:
    """Channels last, and none of them empty."""
    x, given = operands
    return op.channels_last and 0 not in (*x.shape, *given.shape)


def _regular(operands: Sequence[TensorType]) -> int | None:
    """The larger of the sizes of q and v in attention, or None where a size is open or nothing is there."""
    q, k, v, *_ = operands
    depth, width = q.shape[3], v.shape[3]
    if not (isinstance(depth, int) and isinstance(width, int)):
        return None
    return max(depth, width) if 0 not in (*q.shape, *k.shape[2:], width) else None


def passes(keep: Keep = row_kernels, *, tiles: bool = False) -> tuple[Pass, ...]:
    """The pipeline for a target that keeps the composites `keep` says.

    `tiles`: products take channels in pairs, also those of attention, which falls apart into them.
    """

    def kept(op: Op, operands: Sequence[TensorType]) -> bool:
        return keep(op, operands) and not (tiles and isinstance(op, Attention))

    whole = (
        Pass("merge-loops", lambda graph: join(merge(graph))),
        Pass("canonicalise", canonicalise),
        Pass("fold-batch-norm", fold_batch_norm),
        Pass("fold-constants", fold_constants),
        Pass("simplify", simplify),
        Pass("branches", settle),
        Pass("cse", eliminate_common_subexpressions),
        Pass("dead-code", remove_dead_code),
        Pass("loops", lighten),
        Pass("layout", channels_last),
        Pass("decompose", lambda graph: decompose(graph, kept)),
        Pass("transposes", lambda graph: tidy(sink_transposes(tidy(graph)))),
        Pass("split-products", split_products),
        Pass("fill-holes", fill_holes),
        Pass("halo", make_halos),
        *([Pass("even-channels", even_channels)] if tiles else []),
        Pass("late-branches", settle),
        Pass("late-loops", lighten),
    )
    kernels = (
        Pass("fuse", lambda graph: fuse(read_back(graph))),
        Pass("columns", merge_columns),
        Pass("updates", merge_updates),
    )
    return (*(Pass(p.name, everywhere(p.run)) for p in whole), *kernels)


def names() -> tuple[str, ...]:
    """The names of the passes, in order: what `until` may be."""
    return tuple(p.name for p in passes())


def run(
    graph: Graph,
    *,
    until: str | None = None,
    observe: Observer | None = None,
    keep: Keep = row_kernels,
    tiles: bool = False,
) -> tuple[Graph, Report]:
    """Runs the pipeline (see `passes`), or its beginning up to and including the pass called `until`.

    Raises:
        ValueError: There is no pass of that name.
        VerifyError: A pass broke an invariant; the error names it.
    """
    pipeline = passes(keep, tiles=tiles)
    if until is not None and until not in names():
        raise ValueError(f"there is no pass {until!r}; the passes are {', '.join(names())}")
    report = Report()
    for step in pipeline:
        start = time.perf_counter()
        new = step.run(graph)
        if new is not graph:
            verify(new, step.name)
        seconds = time.perf_counter() - start
        report.steps.append(Step(step.name, seconds, len(graph), len(new), new is not graph))
        graph = new
        if observe is not None:
            observe(step.name, graph)
        if step.name == until:
            break
    return graph, report
