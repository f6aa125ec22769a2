"""Compiles fusion bodies as GPU kernels and calls them on the emulator; many bodies share one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphc.artifact.device import Address, DeviceProgram
from graphc.ir.graph import Graph
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.program import Function, launches, source_of
from graphc.lowering.cuda.select import select
from graphc.lowering.plan import Call, Place
from graphc.ops import Fusion
from tests.cuda.emulator import run

Choose = Callable[[Fusion], Kernel]


def selected(fusion: Fusion) -> Kernel:
    """What selection takes, nothing being known when the module is built."""
    return select(fusion, frozenset(), Setting())


class Kernels:
    """Compiled bodies, by name."""

    def __init__(
        self,
        bodies: Mapping[str, Graph],
        choose: Choose = selected,
        in_place: int | None = None,
    ) -> None:
        self.bodies = dict(bodies)
        self._in_place = in_place
        self.functions: dict[str, Function] = {}
        for name, body in bodies.items():
            fusion = Fusion("test", body)
            taken = (in_place, *(None,) * (len(body.outputs) - 1))
            self.functions[name] = Function(f"k_{name}", fusion, choose(fusion), taken)
        self.source = source_of(list(self.functions.values()))
        self.fault: list[int] = [0] * 4

    def __call__(
        self, name: str, *operands: np.ndarray, reverse: bool = False, **dims: int
    ) -> tuple[np.ndarray, ...]:
        """Runs a kernel."""
        body, function = self.bodies[name], self.functions[name]
        types = [body.type_of(v) for _, v in body.outputs]
        own = function.own_results
        like = [np.zeros(types[r].concrete(dims), types[r].dtype.numpy) for r in own]
        places = [
            Place("output", own.index(r)) if r in own else Place("input") for r in range(len(types))
        ]
        call = Call(
            None,  # type: ignore[arg-type]
            (),
            tuple(Place("input", i) for i in range(len(operands))),
            tuple(places),
            Place("arena") if function.kernel.scratch != 0 else None,
            function.in_place,
        )

        def address(place: Place) -> Address:
            return Address(place.space, place.index, place.offset)

        program = DeviceProgram(self.source, (tuple(launches(call, function, address, 0)),))
        after, results, self.fault = run(
            program,
            inputs=[np.ascontiguousarray(x) for x in operands],
            outputs=like,
            arena_bytes=function.kernel.scratch,
            dims=dims,
            reverse=reverse,
        )
        if self._in_place is not None:
            return (after[self._in_place], *results)
        return tuple(results)
