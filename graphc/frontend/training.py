"""Train blocks: what is minimised, how, and on what. Their statements run around the body of the model.

A model is elaborated in one of three modes. `infer` leaves the train block alone. `train` makes the forward part of a
training step: inputs are augmented, batch norms use the statistics of the batch and update the running ones, dropout
drops; the outputs are the loss, the metrics and the next values of buffers. `evaluate` computes loss and metrics of the
model as it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from graphc.frontend.keys import RandomKey
from graphc.frontend.names import uses
from graphc.frontend.recipes import Recipes
from graphc.frontend.report import FailedError
from graphc.frontend.scope import Frame
from graphc.frontend.values import MixedLabels, Tensor, describe, is_poisoned
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Scope, Value
from graphc.ops import Add, Constant, Input
from graphc.optim import (
    Rule,
    matches,
)
from graphc.source import Span
from graphc.syntax import ast

LOSS = "loss"
"""The output that is minimised."""

RNG = "rng"
"""The state that names the random numbers of a step: seed and number of the step, i64[2]."""


@dataclass(frozen=True)
class Training:
    """What a train block says, beside the graph it makes.

    Attributes:
        inputs: What training needs besides the inputs of the model.
        metrics: Names of outputs that are measured.
        rule: The optimizer and its schedule; None in a block without optimizer.
        frozen: Paths of parameters that stay as they are.
        batch, epochs: None where the block does not say.
    """

    inputs: tuple[str, ...]
    metrics: tuple[str, ...]
    rule: Rule | None
    frozen: tuple[str, ...]
    batch: int | None
    epochs: int | None


@dataclass(frozen=True)
class Augmentation:
    """What a train block does to inputs before a step.

    Attributes:
        graph: from the step's inputs to what it makes of them, under their names. Class numbers that were mixed are the
            outputs `label`, `label.other` and `label.share`, how much there is of the first.
        written: the statements, by the input they begin with.
    """

    graph: Graph
    written: dict[str, str]


class TrainBlocks(Recipes):
    """Runs the train block of a model. `section` is None where the file has none."""

    section: ast.Train | None
    frozen: tuple[str, ...] | None  # patterns from outside, instead of the block's

    def begin_training(self, frame: Frame) -> None:
        """What has to be known before the model's body runs."""
        self.train_outputs: list[tuple[str, Value]] = []
        self.train_inputs: dict[str, Any] = {}
        self._declared_by: dict[str, ast.Input] = {}
        self.augmented: dict[str, tuple[Value, str]] = {}
        self.metrics: list[str] = []
        self.updates: dict[str, Value] = {}
        self.said: dict[type[ast.Node], Any] = {}
        self.patterns: list[tuple[str, Span]] = []
        self._rng: Value | None = None
        self._streams = 0
        self._model_frame = frame
        if self.frozen is not None:
            self.patterns = [(text, self.here) for text in self.frozen]
        elif self.section is not None:
            for statement in self.section.body.statements:
                if isinstance(statement, ast.Freeze):
                    self.patterns += [(p.text, p.span) for p in statement.patterns]

    # ---- What layers ask ----------------------------------------------------------------------

    def is_frozen(self, path: str) -> bool:
        """True for a parameter that the train block freezes."""
        return any(matches(pattern, path) for pattern, _ in self.patterns)

    def random_key(self) -> RandomKey:
        """A name for random numbers that nothing else in the step has."""
        if self._rng is None:
            self._rng = self.b(Input(label=RNG, dtype=DType.I64, shape=(2,), state=True))
        return RandomKey(self._rng, self._stream())

    def drawn(self, given: RandomKey | None) -> RandomKey | None:
        """The key of one use of a function that draws; None where none is given and nothing is trained.

        An evaluation draws the same numbers every time: what it finds can be compared.
        """
        if given is not None:
            return RandomKey(given.value, self._stream())
        if self.mode == "evaluate":
            return RandomKey(self.b(Constant.of(np.zeros(2, np.int64))), self._stream())
        return self.random_key() if self.mode == "train" else None

    def _stream(self) -> int:
        """The next stream: uses are numbered in their order, whichever key they draw from."""
        self._streams += 1
        return self._streams - 1

    # ---- Before and after the model -----------------------------------------------------------

    def entered(self, name: str, frame: Frame) -> None:
        """An input of the model has come in: what the train block does to it happens here."""
        if self.section is None or self.mode != "train" or frame is not self._model_frame:
            return
        for statement in self.section.body.statements:
            if isinstance(statement, ast.Augment) and _subject(statement) == name:
                self._guarded(statement, frame, partial(self._augment, statement, frame))

    def end_training(self, frame: Frame) -> None:
        """What comes after the model's body: the train block, and the state that is not the model's."""
        if self.section is not None:
            self._run_section(self.section, frame)
        for pattern, span in self.patterns:
            if not frame.failed and not any(matches(pattern, p) for p in self.declared):
                self.report.error("E0823", f"`{pattern}` fits no parameter of the model", span)
        if self._rng is not None:
            step = self.b(Constant.of(np.array([0, 1], np.int64)))
            self.train_outputs.append((RNG, self.b(Add(), self._rng, step)))

    def _run_section(self, section: ast.Train, frame: Frame) -> None:
        inner = self._frame(frame)
        inner.env.update(self.train_inputs)
        for node in section.body.statements:
            run = _RUN.get(type(node))
            if run is None:
                self.statement(node, inner)
            else:
                self._guarded(node, inner, partial(run, self, node, inner))
        if ast.Loss not in self.said:
            self.report.error(
                "E0820",
                f"the train block of `{section.model.id}` has no loss",
                section.model.span,
                help="say what is minimised: `loss cross_entropy(logits, label)`",
            )

    def training(self) -> Training:
        """What the train block said."""
        paths = [path for path in self.declared if self.is_frozen(path)]
        rule = self.said.get(ast.Optimizer)
        return Training(
            tuple(self.train_inputs),
            tuple(self.metrics),
            rule,
            tuple(paths),
            self.said.get(ast.Batch),
            self.said.get(ast.Epochs),
        )

    def augmentation(self) -> Augmentation | None:
        """What happens to inputs before a step; None where nothing does."""
        if not self.augmented:
            return None
        outputs = [(name, value) for name, (value, _) in self.augmented.items()]
        for name, label in self.train_inputs.items():
            if isinstance(label, MixedLabels):
                mixed = label.mixed
                outputs.append((name, mixed.first))
                outputs += [(f"{name}.other", mixed.second), (f"{name}.share", mixed.share)]
            else:
                outputs.append((name, label.value))
        outputs += [(name, value) for name, value in self.train_outputs if name == RNG]
        written = {name: text for name, (_, text) in self.augmented.items()}
        return Augmentation(self.b.build(outputs, prune=True), written)

    def _frame(self, frame: Frame) -> Frame:
        """A frame for the train block: it sees what the model's body sees."""
        assert self.section is not None
        return Frame(
            frame.module,
            self.section,
            frame.path,
            frame.scope,
            frame.depth,
            dict(frame.env),
            frame.bound,
            frame.labels,
            frame.counts,
            frame.reserved,
        )

    def _guarded(self, node: ast.Node, frame: Frame, run: Callable[[], None]) -> None:
        """Runs a statement of the block; what it would have defined is poison when it fails."""
        self.budget.step()
        self.here = node.span
        try:
            run()
        except FailedError:
            self.poison_assigned(node, frame)
            frame.failed = True

    # ---- Statements ---------------------------------------------------------------------------

    def _train_input(self, node: ast.Input, frame: Frame) -> None:
        if self._declared_by.get(node.name.id) is node:
            return  # an augmentation needed it before
        if node.name.id in frame.bound:
            self.report.fail(
                "E0305",
                f"`{node.name.id}` is defined twice",
                node.name.span,
                "defined again here",
                related=[(frame.bound[node.name.id], "first defined here")],
            )
        frame.env.pop(node.name.id, None)
        self._input(node, frame)
        self.train_inputs[node.name.id] = frame.env[node.name.id]
        self._declared_by[node.name.id] = node

    def _augment(self, node: ast.Augment, frame: Frame) -> None:
        """`augment image -> rotate(10) -> mixup(label, 0.2)`: the input's name gets the result.

        A stage that changes another input too takes it as first argument and returns both.
        """
        chain = node.value
        assert isinstance(chain, ast.Chain) and isinstance(chain.value, ast.Name)
        assert self.section is not None
        inner = self._frame(frame)
        needed = {name.id for name in uses(chain)}
        for statement in self.section.body.statements:
            if isinstance(statement, ast.Input) and statement.name.id in needed:
                self._train_input(statement, inner)
        inner.env.update(self.train_inputs)
        before = inner.env[chain.value.id]
        value = before
        for stage in chain.stages:
            value = self.run_stages((stage,), value, inner)
            if is_poisoned(value):
                raise FailedError
            if isinstance(value, tuple):
                value, other = value
                name = _second(stage)
                self.train_inputs[name] = inner.env[name] = other
        if not isinstance(value, Tensor) or value.type != before.type:
            got = value.type if isinstance(value, Tensor) else describe(value)
            self.report.fail(
                "E0824",
                f"augmentation makes {got} of `{chain.value.id}`, which is {before.type}",
                node.span,
                help="the model was declared for the input as it comes out of the augmentation",
            )
        frame.env[chain.value.id] = value
        self.augmented[chain.value.id] = value.value, chain.span.text

    def _check_augment(self, node: ast.Augment, frame: Frame) -> None:
        """Augmentation has happened where the input came in; here is what can be wrong with the statement."""
        if not isinstance(node.value, ast.Chain) or not isinstance(node.value.value, ast.Name):
            self.report.fail(
                "E0824",
                "augmentation begins with an input of the model",
                node.span,
                help="write `augment image -> horizontal_flip -> random_crop(28, padding=2)`",
            )
        name = node.value.value
        known = [str(getattr(n.op, "label", "")) for n in self.b.nodes if n.op.name == "input"]
        if name.id not in known or name.id in self.train_inputs:
            self.report.fail("E0824", f"`{name.id}` is no input of the model", name.span)

    def _loss(self, node: ast.Loss, frame: Frame) -> None:
        self.once(node, "loss")
        self.said[ast.Loss] = True
        value = self._within(node, LOSS, "Loss", frame)
        if not isinstance(value, Tensor) or not value.type.dtype.is_float or value.type.shape:
            got = value.type if isinstance(value, Tensor) else describe(value)
            self.report.fail(
                "E0821",
                f"the loss has to be one floating-point number and is {got}",
                node.value.span,
                help="reduce it: `mean(...)` or `sum(...)`",
            )
        self.train_outputs.insert(0, (LOSS, value.value))

    def _within(self, node: ast.Loss | ast.Metric, label: str, kind: str, frame: Frame) -> Any:
        """The value of a statement, computed in a block of its own: one box of a picture."""
        outside = frame.scope
        frame.scope = (*outside, Scope(label, kind, node.span))
        try:
            return self.value(node.value, frame)
        finally:
            frame.scope = outside

    def _metric(self, node: ast.Metric, frame: Frame) -> None:
        value = self._within(node, node.name.id, "Metric", frame)
        if not isinstance(value, Tensor):
            self.report.fail(
                "E0404", f"a metric is a tensor, not {describe(value)}", node.value.span
            )
        taken = {LOSS, RNG, *(name for name, _ in self.outputs), *self.metrics}
        if node.name.id in taken:
            self.report.fail("E0305", f"there are two outputs `{node.name.id}`", node.name.span)
        frame.env[node.name.id] = value
        self.metrics.append(node.name.id)
        self.train_outputs.append((node.name.id, value.value))

    def _number(self, node: ast.Batch | ast.Epochs, frame: Frame) -> None:
        word = "batch" if isinstance(node, ast.Batch) else "epochs"
        self.once(node, word)
        value = self.value(node.value, frame)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.report.fail(
                "E0405",
                f"`{word}` has to be a positive integer and is {describe(value)}",
                node.value.span,
            )
        self.said[type(node)] = value

    def _freeze(self, node: ast.Freeze, frame: Frame) -> None:
        """Known since before the model ran: see `begin_training`."""


_RUN: dict[type[ast.Node], Callable[[Any, Any, Frame], None]] = {
    ast.Input: TrainBlocks._train_input,
    ast.Loss: TrainBlocks._loss,
    ast.Metric: TrainBlocks._metric,
    ast.Optimizer: Recipes.optimizer,
    ast.Schedule: Recipes.schedule,
    ast.Augment: TrainBlocks._check_augment,
    ast.Freeze: TrainBlocks._freeze,
    ast.Batch: TrainBlocks._number,
    ast.Epochs: TrainBlocks._number,
}


def _subject(node: ast.Augment) -> str | None:
    """The input that an augmentation begins with."""
    value = node.value.value if isinstance(node.value, ast.Chain) else None
    return value.id if isinstance(value, ast.Name) else None


def _second(stage: ast.Stage) -> str:
    """The name of the other input that a stage changes: its first argument."""
    target = stage.target
    first = target.args[0] if isinstance(target, ast.Call) and target.args else None
    return first.id if isinstance(first, ast.Name) else ""
