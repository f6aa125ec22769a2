"""A model in training: the compiled step, the compiled evaluation, and the state between them."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from graphc import driver
from graphc.artifact import Module, open_compiled
from graphc.frontend import LOSS, RNG, initialise
from graphc.ir.graph import Graph, Node
from graphc.model import Model, Weights
from graphc.optim import Rule
from graphc.optim.step import TrainingStep, training_step, with_inputs
from graphc.reference import interpret
from graphc.train.errors import StateError
from graphc.train.labels import data_ports
from graphc.train.state import in_host_memory, state_of

Array = np.ndarray[Any, np.dtype[Any]]


STEP = "step"
"""The folder of the compiled step."""


class Trainer:
    """Trains a model by its train block, or by a rule given here.

    On a GPU the state stays in its memory between steps; a step moves the batch there and the loss back.

    >>> trainer = Trainer(graphc.load("lenet.nn"))
    >>> trainer.run({"image": images, "label": labels})["loss"]

    Attributes:
        model: what is trained.
        step: the graph of the step, and what its state is.
        metrics: names of outputs that are measured.
        ports: the data inputs.
        batch, epochs: what the train block says; None where it says nothing.
    """

    def __init__(
        self,
        model: Model,
        weights: Weights = None,
        *,
        rule: Rule | None = None,
        loss: str | None = None,
        metrics: Sequence[str] = (),
        freeze: Sequence[str] | None = None,
        seed: int = 0,
        evaluation: bool = True,
        target: str = "native",
        precision: str = "f32",
        threads: int | None = None,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> None:
        """Compiles the step.

        Args:
            model: as `graphc.load` returns it.
            weights: where training begins; None draws from the initialisers.
            rule: instead of the train block's optimizer.
            loss: an output of the model to minimise; the train block is left alone then.
            metrics: with `loss`, outputs to measure.
            freeze: patterns of parameters that stay as they are, instead of the train block's.
            evaluation: compile what `evaluate` needs too; else it is at its first use.
            seed: of the initial weights and of all random numbers in the steps.
            target, precision, threads: as for `Model.compile`; the state is f32 in any precision.
            progress: called with the name of each stage.

        Raises:
            DiagnosticError: the file has no train block, or something in it or in the weights is wrong.
            ArgumentError: nothing is left to train, or there is no optimizer.
            OpError: something on the way to the loss has no gradient.
        """
        self.model, self.seed = model, seed
        forward = model.for_training("train", freeze=freeze, block=loss is None)
        used = model.for_training("evaluate", freeze=freeze, block=loss is None)
        said = forward.training
        assert said is not None
        self.loss = LOSS if loss is None else loss
        self.metrics = said.metrics if loss is None else tuple(metrics)
        self.batch, self.epochs = said.batch, said.epochs
        rule = rule or said.rule
        if rule is None:
            raise StateError(
                f"nothing says how {model.name} is trained: write `optimizer AdamW(lr=1e-3)` in its train block"
            )
        self.rule = rule
        trainable = [
            p.path for p in forward.parameters if p.trainable and p.path not in said.frozen
        ]
        self.step: TrainingStep = training_step(
            forward.graph, self.loss, rule, trainable, self.metrics
        )
        self._fixed = model.initialise(seed) if weights is None else model.weights(weights)
        for info in forward.parameters:  # of the train block alone
            if info.path not in self._fixed:
                self._fixed |= initialise([info], seed)
        changing = (*self.step.trained, *self.step.buffers)
        begin = {name: self._fixed.pop(name).copy() for name in changing}
        for name, slot in self.step.slots.items():
            shape = tuple(int(d) for d in slot.type.shape if isinstance(d, int))
            begin[name] = np.full(shape, slot.init, slot.type.dtype.numpy)
        states = [str(node.op.attributes()["label"]) for node, _ in self.step.graph.state]
        if RNG in states:
            begin[RNG] = np.array([seed, 0], np.int64)
        begin = {name: begin[name] for name in states}
        self.ports = data_ports(forward.graph, said.inputs)
        self._folder = tempfile.TemporaryDirectory(prefix="graphc-")
        weakref.finalize(self, self._folder.cleanup)
        self._precision = precision
        self._module = self._compile(self.step.graph, STEP, target, threads, progress, begin)
        self._state = state_of(self._module, begin)
        self._use = partial(
            self._compile,
            with_inputs(used.graph, changing),
            "evaluation",
            target,
            threads,
            progress,
        )
        if evaluation:
            self.evaluation  # noqa: B018  compiled now, not in the middle of training

    def _compile(
        self,
        graph: Graph,
        name: str,
        target: str,
        threads: int | None,
        progress: Callable[[str], None],
        state: dict[str, Array] | None = None,
    ) -> Module:
        folder = driver.compile_graph(
            graph,
            self._fixed,
            Path(self._folder.name) / name,
            target=target,
            precision=self._precision,
            state=state,
            durable=False,  # it goes with the trainer
            progress=lambda stage: progress(f"{name}: {stage}"),
        )
        return open_compiled(folder, threads)

    # ---- Steps --------------------------------------------------------------------------------

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """One step on a batch of data: the loss, the metrics and `lr` before the weights change.

        A loss that is not finite leaves everything as it was. Raises what `Module.run` does.
        """
        return in_host_memory(self._module.run({**batch, **self._state.given()}))

    def evaluate(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """The loss, the metrics and the outputs of the model as it is used, with the weights of now."""
        given = {**batch, **self._state.given()}
        results = self.evaluation.run({p.name: given[p.name] for p in self.evaluation.inputs})
        return in_host_memory(results)

    @cached_property
    def evaluation(self) -> Module:
        """The model as it is used, with loss and metrics, on weights that are inputs."""
        return self._use()

    def save(self, directory: str | Path) -> Path:
        """Writes the step as a module folder: training without Python, from the state this trainer began with.

        `Module.initial_state` and, in C, `graphc_initial_state` give that state. Raises ModuleFileError as
        `Module.save` does.
        """
        return self._module.save(directory)

    def blame(self, batch: Mapping[str, Array]) -> str:
        """Where the first number that is not finite appears in a step on this batch; "" when none does.

        The step is interpreted in NumPy, which takes its time.
        """
        found: list[str] = []

        def observe(node: Node, results: Sequence[Array]) -> None:
            if found or node.op.name in ("input", "parameter", "constant"):
                return
            if any(x.dtype.kind == "f" and not np.isfinite(x).all() for x in results):
                place = f" ({node.span})" if node.span is not None else ""
                found.append(f"{node.op.name} of `{node.path}`{place}")

        with np.errstate(all="ignore"):
            interpret(self.step.graph, {**batch, **self.state()}, self._fixed, observe=observe)
        return found[0] if found else ""

    # ---- State --------------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """Copies of everything that a step changes, by name: what a checkpoint keeps."""
        return self._state.copies()

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Goes on from what `state` returned. Raises StateError for arrays that do not fit."""
        now = self._state.given()
        missing = [name for name in now if name not in state]
        unknown = [name for name in state if name not in now]
        if missing or unknown:
            what = "lacks" if missing else "has the unknown"
            raise StateError(f"the state {what} {', '.join((missing or unknown)[:5])}")
        for name, array in now.items():
            new = np.asarray(state[name])
            if new.shape != array.shape or new.dtype != array.dtype:
                raise StateError(
                    f"the state `{name}` is {new.dtype}{list(new.shape)}, "
                    f"expected {array.dtype}{list(array.shape)}"
                )
        self._state.load(state)

    def weights(self, *, average: bool = False) -> dict[str, Array]:
        """All parameters of the model by path; with `average` those trained are their moving averages.

        Raises StateError when no average is kept.
        """
        if average and self.rule.ema is None:
            raise StateError("no moving average is kept: give the optimizer `ema=0.999`")
        found, now = {}, self.state()
        for info in self.model.parameters:
            name = f"ema.{info.path}" if average and info.path in self.step.trained else info.path
            found[info.path] = now[name] if name in now else self._fixed[name].copy()
        return found
