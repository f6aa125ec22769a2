"""Where the state of a training step is between steps: in host memory, or on the GPU that the step runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.artifact.cuda.memory import DeviceArray
from graphc.artifact.cuda.module import CudaModule
from graphc.artifact.module import Module

Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["HostState", "ResidentState", "in_host_memory", "state_of"]


class HostState:
    """NumPy arrays by name, which steps overwrite."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)

    def given(self) -> Mapping[str, Any]:
        """What a step is called on."""
        return self._arrays

    def copies(self) -> dict[str, Array]:
        """Copies in host memory, by name."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def load(self, state: Mapping[str, Array]) -> None:
        """Overwrites everything with arrays of the same types and shapes."""
        for name, array in self._arrays.items():
            array[...] = state[name]


class ResidentState:
    """Arrays in memory of a module's GPU, put there when the first step needs them: steps move nothing but data."""

    def __init__(self, arrays: Mapping[str, Array], module: CudaModule) -> None:
        self._waiting: Mapping[str, Array] | None = {n: a.copy() for n, a in arrays.items()}
        self._module = module
        self._arrays: dict[str, DeviceArray] = {}

    def given(self) -> Mapping[str, Any]:
        """What a step is called on. Raises what `graphc.open` does where there is no GPU."""
        if self._waiting is not None:
            self._arrays, self._waiting = self._module.upload(self._waiting), None
        return self._arrays

    def copies(self) -> dict[str, Array]:
        """Copies in host memory, by name, once all steps are done."""
        if self._waiting is not None:
            return {name: array.copy() for name, array in self._waiting.items()}
        return {name: array.numpy() for name, array in self._arrays.items()}

    def load(self, state: Mapping[str, Array]) -> None:
        """Goes on from other arrays of the same types and shapes."""
        self._waiting, self._arrays = {n: np.array(a) for n, a in state.items()}, {}


def state_of(module: Module, arrays: Mapping[str, Array]) -> HostState | ResidentState:
    """The state of a step that a module computes."""
    return ResidentState(arrays, module) if isinstance(module, CudaModule) else HostState(arrays)


def in_host_memory(results: Mapping[str, Any]) -> dict[str, Array]:
    """What a step returned, copied from the GPU where it is there."""
    return {n: x.numpy() if isinstance(x, DeviceArray) else x for n, x in results.items()}
