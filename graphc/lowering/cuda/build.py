"""From PrimFuncs to CUDA C text: the shortest pass pipeline, then TVM's code generator, no compiler.

TVM's simplifier is left out: it would substitute names into their uses again, and takes floats for reals (`x != x` for
false, `not a < b` for `a >= b`). What it would tidy, NVRTC does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from graphc.lowering.cuda.emit import CLUSTER

__all__ = ["prelude", "text_of"]


_TEXTS = (
    "prelude.cuh",
    "tensor_cores.cuh",
    "products/rows.cuh",
    "products/windows.cuh",
    "products/slow.cuh",
    "products/units.cuh",
    "products/multiply.cuh",
    "attention/flash.cuh",
    "attention/gradient.cuh",
    "attention/gradient_plain.cuh",
    "pooling/gradient.cuh",
    "generic/scatter.cuh",
    "generic/sort.cuh",
)


@cache
def prelude() -> str:
    """What generated kernels may call."""
    folder = files("graphc.lowering.cuda")
    return "".join(folder.joinpath(name).read_text() for name in _TEXTS)


def text_of(functions: Iterable[Any]) -> str:
    """CUDA C of kernels in the order given, without the prelude."""
    return "".join(_kernel_text(function) for function in functions)


def _kernel_text(function: Any) -> str:
    import tvm
    from tvm import tirx

    target = tvm.target.Target(
        {
            "kind": "cuda",
            "arch": "sm_80",  # the text is the same for all
            "max_threads_per_block": 1024,
            "max_shared_memory_per_block": 227 << 10,
            "thread_warp_size": 32,
        }
    )
    name = str(function.attrs["global_symbol"])
    passes = [
        tirx.transform.BindTarget(target),
        tirx.transform.LowerIntrin(),
    ]
    module = tvm.ir.transform.Sequential(passes)(tvm.IRModule({name: function}))
    device = tvm.IRModule({name: module[name].with_attr("calling_conv", 2)})
    text: str = tvm.get_global_func("target.build.cuda")(device, target).inspect_source()
    # TVM's own header goes: kernels use nothing of it. The declaration in front repeats the definition's first line.
    declared = text.index('extern "C" __global__')
    defined = text.index('extern "C" __global__', declared + 1)
    # Naming the least number of blocks (one) makes ptxas use the registers that there are instead of spilling some.
    cluster = int(function.attrs[CLUSTER])
    bounds = r"__launch_bounds__(\1, 1)" + (
        f" __cluster_dims__({cluster}, 1, 1)" if cluster > 1 else ""
    )
    bounded = re.sub(r"__launch_bounds__\((\d+)\)", bounds, text[defined:], count=1)
    return bounded.strip() + "\n\n"
