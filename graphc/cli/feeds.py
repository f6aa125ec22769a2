"""Inputs for commands that measure: those that are not given are made up. And how such commands call a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphc.artifact import Module, expr
from graphc.artifact.arrays import numpy_dtype
from graphc.artifact.cuda.module import CudaModule
from graphc.cli import arrays
from graphc.cli.command import UserError

MAX_INPUT_BYTES = 1 << 33


def made_up(
    module: Module, dims: dict[str, int], given: dict[str, arrays.Array]
) -> dict[str, arrays.Array]:
    """Inputs for all of a module's inputs. Raises UserError for an unknown dim or a size that is too large."""
    known = {d.name: d for d in module.dims}
    for name in dims:
        if name not in known:
            raise UserError(
                f"the module has no dim `{name}` (it has: {', '.join(known) or 'none'})"
            )
    sizes = {name: dims.get(name, d.low) for name, d in known.items()}
    random = np.random.default_rng(0)
    feeds = dict(given)
    if any(port.state for port in module.inputs):
        feeds = {**module.initial_state(), **feeds}
    for port in module.inputs:
        if port.name in feeds:
            continue
        shape = tuple(expr.evaluate(d, sizes) for d in port.shape)
        dtype = numpy_dtype(port.dtype)
        if dtype.itemsize * float(np.prod([float(n) for n in shape])) > MAX_INPUT_BYTES:
            raise UserError(f"input `{port.name}` would be larger than {MAX_INPUT_BYTES >> 30} GiB")
        if port.dtype in ("f16", "f32", "f64", "bf16"):
            feeds[port.name] = random.standard_normal(shape, np.float32).astype(dtype)
        else:
            feeds[port.name] = np.zeros(shape, dtype)
    return feeds


def repeated(module: Module, feeds: Mapping[str, arrays.Array]) -> Callable[[], object]:
    """What calls a module on these inputs once and waits for it: on a GPU they are there already, and results stay."""
    if not isinstance(module, CudaModule):
        return lambda: module.run(feeds)
    call, wait = module.bind(module.upload(feeds)), module.synchronize

    def once() -> None:
        call()
        wait()

    return once


def runs_on(module: Module) -> str:
    """`2 threads`, or `GPU 0`."""
    if isinstance(module, CudaModule):
        return f"GPU {module.device}"
    return f"{module.threads} thread{'s' if module.threads > 1 else ''}"
