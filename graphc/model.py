"""`Model`: a checked `.nn` model as a Python object, and `load`, which makes one."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

import graphc
from graphc import frontend
from graphc.artifact import Module, open_compiled
from graphc.artifact.safetensors_io import read_safetensors
from graphc.autodiff import grad_graph
from graphc.diagnostics import Diagnostic
from graphc.diagram import render, summary
from graphc.diagram.dot import draw
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph

Array = np.ndarray[Any, np.dtype[Any]]
Weights = str | Path | Mapping[str, Array] | None


def load(
    path: str | Path,
    *,
    model: str | None = None,
    dims: Mapping[str, int] | None = None,
    **settings: object,
) -> Model:
    """Reads a `.nn` file and checks every shape in it.

    Args:
        path: the file.
        model: which model of the file, when it has several.
        dims: named dims to fix, such as `{"N": 1}`; the others stay open until the module runs.
        **settings: values for the model's own arguments (`classes=10`).

    Raises:
        DiagnosticError: with every mistake in the file, as `graphc check` prints them.
    """

    def elaborate(
        mode: frontend.Mode, freeze: Sequence[str] | None, block: bool
    ) -> frontend.Elaborated:
        return frontend.load(
            path,
            model=model,
            settings=settings,
            dims=dims,
            mode=mode,
            freeze=freeze,
            block=block,
        )

    return Model(elaborate("infer", None, False), elaborate)


def grad(
    model: Model, of: str, wrt: Sequence[str] | None = None, *, keep: Sequence[str] = ()
) -> Model:
    """The model that computes the gradients of the scalar output `of`: see `Model.grad`."""
    return model.grad(of, wrt, keep=keep)


class Model:
    """A model whose shapes are checked; what you can do with a `.nn` file in Python."""

    def __init__(
        self,
        elaborated: frontend.Elaborated,
        elaborate: Callable[..., frontend.Elaborated] | None = None,
    ) -> None:
        self._elaborated = elaborated
        self._elaborate = elaborate
        self.graph: Graph = elaborated.graph

    def for_training(
        self,
        mode: Literal["train", "evaluate"],
        *,
        freeze: Sequence[str] | None = None,
        block: bool = True,
    ) -> Model:
        """The model as its train block sees it: the forward part of a step, or loss and metrics as it is used.

        What the block says is `training`. `freeze` are patterns instead of the block's own; without `block` the outputs
        are the model's. Raises DiagnosticError where there is no block, or something in it is wrong, and ValueError for
        a model that was derived from another.
        """
        if self._elaborate is None:
            raise ValueError(f"{self.name} was derived from a model and cannot be read again")
        return Model(self._elaborate(mode, freeze, block))

    @property
    def training(self) -> frontend.Training | None:
        """What the train block says; only in what `for_training` returns."""
        return self._elaborated.training

    @property
    def augmentation(self) -> frontend.Augmentation | None:
        """What the train block does to inputs; only in what `for_training("train")` returns."""
        return self._elaborated.augmentation

    @property
    def name(self) -> str:
        """The model's name in the file."""
        return self._elaborated.name

    @property
    def parameters(self) -> tuple[frontend.ParameterInfo, ...]:
        """Paths, types and initialisers of the parameters, in declaration order."""
        return self._elaborated.parameters

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What is suspicious but not wrong: unused names and the like."""
        return self._elaborated.warnings

    def optimised(self, after: str | None = None) -> Graph:
        """The graph after the pass called `after`, or after all of them. Raises ValueError for an unknown pass."""
        return graphc.driver.optimise(self.graph, until=after)[0]

    def dump(self, after: str | None = None) -> str:
        """The graph as text, which parses back; `after` names a pass, None means before any."""
        return print_graph(self.graph if after is None else self.optimised(after))

    def summary(self, *, dims: Mapping[str, int] | None = None) -> summary.Summary:
        """The layer tree with shapes, parameters, MACs and memory; print it, or ask it for rows.

        `dims` are sizes of open dims to count for; their lower (or upper, where bounded) ends otherwise.
        """
        return summary.summarise(self.graph, dims=dims)

    def draw(
        self,
        path: str | Path | None = None,
        *,
        after: str | None = None,
        depth: int | None = None,
        opened: Sequence[str] = (),
        ops: bool = False,
        direction: Literal["down", "right"] = "down",
        title: str | None = None,
    ) -> str:
        """DOT text of the diagram; with `path` it is also written as .svg, .png, .pdf or .dot.

        Args:
            path: where to write a picture.
            after: draw the graph as it is after this pass; None means as it is written.
            depth: levels of blocks to show; None opens what fits a page.
            opened: block paths (`layer2`) to open besides.
            ops: open layers down to single ops.
            direction: which way data flows on the page.
            title: instead of the model's name.

        Raises:
            RenderError: a picture is asked for and Graphviz is not installed.
            ValueError: there is no pass called `after`.
        """
        graph = self.graph if after is None else self.optimised(after)
        text = draw(graph, depth=depth, opened=opened, ops=ops, direction=direction, title=title)
        if path is not None:
            render.save(text, path)
        return text

    def grad(
        self, output: str, wrt: Sequence[str] | None = None, *, keep: Sequence[str] = ()
    ) -> Model:
        """The model that computes the gradients of a scalar output, as outputs `grad_<name>`.

        It has the same inputs and parameters, and can be drawn, dumped and compiled like any other.

        Args:
            output: the loss, or another scalar.
            wrt: inputs and parameters by name; None means every trainable parameter.
            keep: outputs to compute besides, in front of the gradients.

        Raises:
            OpError: the output is no scalar of floats, or an op on the way has no gradient.
            ValueError: there is no such output, input or parameter.
        """
        if wrt is None:
            wrt = [p.path for p in self.parameters if p.trainable]
        graph = grad_graph(self.graph, output, wrt, keep)
        return Model(replace(self._elaborated, graph=graph))

    def initialise(self, seed: int = 0) -> dict[str, Array]:
        """Fresh parameters from the file's initialisers: same seed, same values."""
        return frontend.initialise(self.parameters, seed)

    def weights(self, weights: Weights) -> dict[str, Array]:
        """Arrays for every parameter: from a safetensors file or a mapping, checked; None initialises.

        Raises DiagnosticError with one table of what is missing, extra or of the wrong shape.
        """
        if weights is None:
            return self.initialise()
        arrays = weights if isinstance(weights, Mapping) else read_safetensors(Path(weights))
        return frontend.match_weights(self.parameters, arrays)

    def compile(
        self,
        weights: Weights = None,
        directory: str | Path | None = None,
        *,
        target: str = "native",
        precision: Literal["f32", "bf16", "high", "f16", "tf32"] = "f32",
        threads: int | None = None,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> Module:
        """Compiles to a module, opened and ready to call.

        Args:
            weights: a safetensors file or a mapping path -> array; None draws them from the initialisers.
            directory: the module's folder; None is one that goes with the module (`module.save` keeps it).
            target: `native` (this machine), `x86-64-v3`, `x86-64-v4`, or a level plus extensions; `cuda` (sm_90), or
                `cuda:sm_80` and the like. A module for a GPU is opened there when it is called first.
            precision: what products are computed in. `bf16` also stores values between kernels so; `high` splits f32
                into two bf16 (16 bits of mantissa). Inputs, outputs and weights keep their types. Both need a CPU
                with AMX; a module for another computes in f32, and `graphc inspect` says so. GPUs have `bf16`, `f16`
                and `tf32`.
            threads: how many threads a call uses; default: the processors this process may run on.
            progress: called with the name of each stage.

        Raises:
            DiagnosticError: the weights do not fit.
            TargetError: no such target.
            ValueError: no such precision.
            ModuleError: no C compiler, no CUDA compiler for a GPU, or the module cannot be written.
        """
        progress("loading weights")
        arrays = self.weights(weights)
        if directory is None:
            folder = tempfile.TemporaryDirectory(prefix="graphc-")
            place = Path(folder.name) / self.name
        else:
            folder, place = None, Path(directory)
        graphc.driver.compile_graph(
            self.graph,
            arrays,
            place,
            target=target,
            precision=precision,
            durable=directory is not None,
            progress=progress,
        )
        progress("opening")
        module = open_compiled(place, threads)
        if folder is not None:
            weakref.finalize(module, folder.cleanup)
        return module
