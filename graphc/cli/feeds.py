"""Inputs for commands that measure: those that are not given are made up."""

from __future__ import annotations

import numpy as np

from graphc.artifact import Module, expr
from graphc.artifact.arrays import numpy_dtype
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
