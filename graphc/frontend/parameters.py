"""Fresh parameters from their initialisers."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from graphc.frontend.initialisers import make
from graphc.frontend.store import ParameterInfo
from graphc.ir.op import Array


def initialise(parameters: Iterable[ParameterInfo], seed: int = 0) -> dict[str, Array]:
    """An array for every parameter, by path: same seed, same values, on any machine.

    Each parameter has a random stream of its own, seeded by its path, so that a change elsewhere in the model
    changes nothing here.
    """

    def array(info: ParameterInfo) -> Array:
        shape = tuple(d for d in info.type.shape if isinstance(d, int))
        values = make(info.init, shape, info.path, seed)
        return values.astype(info.type.dtype.numpy, copy=False)

    every = list(parameters)
    with ThreadPoolExecutor(2) as pool:  # NumPy draws without the interpreter lock
        return dict(zip([p.path for p in every], pool.map(array, every), strict=True))
