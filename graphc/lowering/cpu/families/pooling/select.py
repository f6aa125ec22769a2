"""Selecting and emitting pooling: `max_pool`, `avg_pool` and `window_sum` roots, channels last."""

from __future__ import annotations

from graphc.ir.graph import Node
from graphc.lowering.cpu.families.dense.select import computed_in
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.families.pooling.pool import PoolSpec, emit_pool
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.strides import stored_slot
from graphc.ops import AvgPool, Fusion, MaxPool, WindowSum

DTYPES = ("float32", "float64")
_KINDS: dict[type, str] = {MaxPool: "max", AvgPool: "average", WindowSum: "sum"}


def select_pooling(fusion: Fusion, root: Node, target: CpuTarget) -> Kernel | None:
    """A kernel for a fusion whose root is a window over one operand of the kernel, else None."""
    op = root.op
    assert isinstance(op, (MaxPool, AvgPool, WindowSum))
    slot = stored_slot(fusion.body, root.operands[0])
    x = fusion.body.type_of(root.operands[0])
    dtype = computed_in(x.dtype)
    sizes = x.size == 0 or root.types[0].size == 0
    if not op.channels_last or slot is None or dtype not in DTYPES:
        return None
    if sizes or len(root.types) > 1:
        return None

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        n, *size, channels = (dim_expr(d, io.dims) for d in x.shape)
        output = tuple(dim_expr(d, io.dims) for d in root.types[0].shape[1:-1])
        average = op if isinstance(op, AvgPool) else None
        spec = PoolSpec(
            _KINDS[type(op)],
            n,
            tuple(size),
            output,
            channels,
            op.window,
            op.strides,
            op.padding,
            op.dilation,
            count_include_pad=average.count_include_pad if average else True,
            divisor=average.divisor if average else None,
            dtype=dtype,
        )
        emit_pool(spec, target, io.operands[slot], epilogue.finish)

    return Kernel("pool", emit)
