"""Several products in one graph, compiled as one program: a program costs more than all of its kernels' runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import numpy as np

from graphc.artifact.device import DeviceProgram
from graphc.artifact.spec import ModuleSpec
from graphc.ir.dim import Bounds, Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.lowering.cuda.hopper import kernel, product
from graphc.lowering.cuda.hopper.tiles import Cut
from graphc.ops import Input
from graphc.reference import interpret
from tests.lowering.compiled import random_parameters
from tests.lowering.cuda.emulated import Array, compare, compile_device, execute

N = Dim.symbol("N")
"""The open size of a network's inputs."""


class Network:
    """A graph under construction, with N among its sizes where it is `open`."""

    def __init__(self, *, open: bool = False) -> None:
        self.b = GraphBuilder("network", {"N": Bounds(0)} if open else {})
        self.inputs: dict[str, tuple[DType, tuple[DimLike, ...]]] = {}
        self.outputs: list[tuple[str, Value]] = []

    def input(self, name: str, dtype: DType, shape: Sequence[DimLike]) -> Value:
        self.inputs[name] = dtype, tuple(shape)
        return self.b(Input(name, dtype, tuple(shape)))

    def drawn(self, size: int) -> dict[str, Array]:
        """Inputs, with `size` for N."""
        rng = np.random.default_rng(size)
        return {
            name: rng.normal(size=[size if isinstance(d, Dim) else d for d in shape]).astype(
                dtype.numpy
            )
            for name, (dtype, shape) in self.inputs.items()
        }


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network for sm_90a, and what it computes."""

    network: Network
    graph: Graph
    spec: ModuleSpec
    program: DeviceProgram
    parameters: dict[str, Array] = field(default_factory=dict)

    @property
    def kernels(self) -> list[str]:
        """The text of each kernel."""
        return self.program.source.split('extern "C" __global__')[1:]

    def check(self, size: int, tolerance: float, reverse: bool = False) -> None:
        """Every output is the interpreter's."""
        inputs = self.network.drawn(size)
        found, fault = execute(self.spec, self.program, self.graph, inputs, reverse)
        assert fault[0] == 0
        compare(found, interpret(self.graph, inputs, self.parameters), tolerance)


@contextmanager
def cut_by(rule: Callable[[DimLike], Cut], blocks: int) -> Iterator[None]:
    """Small products in tiles of large ones: `rule` cuts by the columns, and a launch has few blocks."""

    def choose(m: DimLike, n: DimLike, batch: DimLike) -> Cut:
        return rule(n)

    with (
        mock.patch.object(product, "choose", choose),
        mock.patch.object(kernel, "PROCESSORS", blocks),
    ):
        yield


def compiled(network: Network, cuts: Mapping[int, Cut], blocks: int = 3) -> Compiled:
    """A network, whose products with so many columns are cut as said, and else as they would be."""
    graph = network.b.build(network.outputs)
    parameters = random_parameters(graph)
    with cut_by(lambda n: cuts.get(n, Cut(64, 32)) if isinstance(n, int) else Cut(64, 32), blocks):
        spec, program = compile_device(graph, parameters, "cuda:sm_90a")
    return Compiled(network, graph, spec, program, parameters)
