"""From PrimFuncs to object code: a short pass pipeline, then LLVM.

TVM's default pipeline holds some thirty passes for blocks, GPUs and tensor cores that kernels
written with :mod:`~graphc.lowering.cpu.emit` never need, and one (``RewriteUnsafeSelect``) that
would turn vector selects into branches. The list here is what is left: buffers are flat as emitted
(``FlattenBuffer`` alone took a quarter of a compilation), and one ``StmtSimplify`` is as good as two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from graphc.lowering.cpu.emit import symbol
from graphc.lowering.cpu.features import CpuTarget

__all__ = ["compile_object", "compile_objects"]


def _lower(module: Any, target: Any) -> Any:
    """Runs the TIR passes between a kernel as emitted and what LLVM's code generator accepts."""
    import tvm
    from tvm import tirx

    passes = [
        tirx.transform.BindTarget(target.with_host(target)),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.MakePackedAPI(),
        tirx.transform.LowerIntrin(),
    ]
    return tvm.ir.transform.Sequential(passes)(module)


def compile_object(
    functions: Mapping[Any, Any], target: CpuTarget, *, level: int | None = None
) -> bytes:
    """Compiles PrimFuncs into one relocatable ELF object.

    Args:
        functions: name -> PrimFunc, where a private function is keyed by the very
            :func:`~graphc.lowering.cpu.emit.symbol` that its callers use. A public one
            (``kernel(..., public=True)``) becomes the C symbol it was named.
        target: the instruction set. No check is made that this machine has it: nothing is run.
        level: how much LLVM optimises, by default what kernels need.

    Returns:
        the bytes of the ``.o`` file, equal for equal input. It refers to ``libc`` symbols at most,
        and holds the weak variable ``__TVMBackendParallelLaunch``, the launcher to be filled in,
        when some kernel is parallel.
    """
    import tvm

    module = tvm.IRModule(
        {symbol(key) if isinstance(key, str) else key: f for key, f in functions.items()}
    )
    llvm_target = target.tvm_target(level)
    library = tvm.get_global_func("target.build.llvm")(_lower(module, llvm_target), llvm_target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        library.write_to_file(str(path))
        return path.read_bytes()


def compile_objects(
    partitions: Iterable[Mapping[Any, Any]],
    target: CpuTarget,
    *,
    plain: Set[str] = frozenset(),
    threads: int = 2,
) -> list[bytes]:
    """Compiles several modules at once, one object each, in the order given.

    Functions of `plain` are long, run once and have little to optimise: LLVM does the least it can where there are no
    others beside them.

    `partitions` may be a generator: what it has yielded compiles while it emits the next, since LLVM
    runs without the interpreter lock. Functions that another partition calls must be public.
    """

    def compiled(functions: Mapping[Any, Any]) -> bytes:
        level = 1 if functions.keys() <= plain else None
        return compile_object(functions, target, level=level)

    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(compiled, partitions))
