"""Selecting and emitting the gradient of max pooling, with transposes in front of its operands read as strides."""

from __future__ import annotations

from graphc.ir.dim import DimLike
from graphc.ir.graph import Node
from graphc.lowering.cpu.emit import View
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.families.pooling.gradient import emit_pool_gradient
from graphc.lowering.cpu.families.pooling.pool import PoolSpec
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.operands import strided
from graphc.lowering.generic.strides import strides_of
from graphc.ops import Fusion, MaxPoolGradient


def select_pooling_gradient(fusion: Fusion, root: Node, target: CpuTarget) -> Kernel:
    """A kernel for a fusion whose root is a `max_pool_gradient` that `pipeline.row_kernels` keeps."""
    op, body = root.op, fusion.body
    assert isinstance(op, MaxPoolGradient)
    x, pooled = (body.type_of(v) for v in root.operands)
    read = [strided(body, v) for v in root.operands]
    dtype = str(x.dtype.numpy)

    def emit(io: KernelIO) -> None:
        def view(memory: View, dtype: str, strides: tuple[DimLike, ...]) -> View:
            sizes = tuple(dim_expr(s, io.dims) for s in strides)
            return View(memory.buffer, dtype, sizes, memory.offset)

        epilogue = Epilogue(body, root, io, target)
        epilogue.fill_border()
        n, *size, channels = (dim_expr(d, io.dims) for d in x.shape)
        output = tuple(dim_expr(d, io.dims) for d in pooled.shape[1:-1])
        window = op.window, op.strides, op.padding, op.dilation
        spec = PoolSpec("max", n, tuple(size), output, channels, *window, dtype=dtype)
        source, cotangent = (
            view(io.operands[slot], io.operands[slot].dtype, strides) for slot, strides in read
        )
        assert io.scratch is not None
        scratch = view(io.scratch, dtype, strides_of(pooled.shape))
        emit_pool_gradient(spec, target, source, cotangent, scratch, epilogue.finish)

    return Kernel("pool_gradient", emit, pooled.size * x.dtype.numpy.itemsize, dtype)
