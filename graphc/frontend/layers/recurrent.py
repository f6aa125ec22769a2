"""Recurrent layers with PyTorch's parameters: RNN, LSTM, GRU.

Each layer and direction is one product of the whole sequence with the input weights, and a scan over its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from graphc.frontend.draws import dropout
from graphc.frontend.layers.base import (
    Layer,
    LayerContext,
    agree,
    checked,
    fixed,
    layer_classes,
    need_float,
    positive,
    type_of,
    uniform_bound,
)
from graphc.frontend.layers.dropout import check_probability
from graphc.frontend.layers.emit import (
    add_along,
    full,
    linear,
    reshape,
    slice_axis,
    transpose,
)
from graphc.frontend.report import RejectError
from graphc.ir.dim import DimLike
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.types import TensorType
from graphc.ops import (
    Add,
    BroadcastInDim,
    Compare,
    Concatenate,
    Input,
    Iota,
    Logistic,
    Relu,
    Scan,
    Select,
    Tanh,
    arith,
)
from graphc.ops.bodies import close

States = tuple[Value, ...]


@dataclass(frozen=True)
class _Recurrent(Layer):
    """Input [T, N, D], or [N, T, D] with `batch_first`, or [T, D]. The output has `hidden_size` features, twice as many
    if `bidirectional`; the states have shape [num_layers * directions, N, hidden_size].

    Options of the application: initial states as further inputs (zeros where left out), and `lengths` (i64 [N]): from
    that step on a sequence is over, its outputs are 0 and its last state stays, as with `pack_padded_sequence`.
    `dropout` leaves out outputs of all layers but the last while training.

    Parameters of layer k: `weight_ih_lk`, `weight_hh_lk`, `bias_ih_lk`, `bias_hh_lk`, and `..._reverse`, all uniform in
    ±1/sqrt(hidden_size).
    """

    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    input_size: int | None = checked()

    gates: ClassVar[int]
    separate: ClassVar[bool] = (
        False  # whether the cell needs the hidden state's part with its bias by itself
    )

    def cell(self, b: GraphBuilder, x: Value, h: Value, rest: States) -> States:
        """One step: the next states from the projected input, the projected hidden state, and all states."""
        raise TypeError(f"{type(self).__name__} has no cell")

    def run(
        self, cx: LayerContext, x: Value, starts: Sequence[Value | None], lengths: Value | None
    ) -> tuple[Value, States]:
        """The output and the last states."""
        positive(cx, hidden_size=self.hidden_size, num_layers=self.num_layers)
        check_probability(cx, "dropout", self.dropout)
        kind = need_float(cx, x)
        if kind.rank not in (2, 3):
            order = "N, T, D" if self.batch_first else "T, N, D"
            raise RejectError(
                f"{cx.what} needs [{order}] or [T, D] and gets {kind}", code="E0205", operand=0
            )
        agree(
            cx,
            self.input_size,
            fixed(cx, kind.shape[-1], "input features"),
            "features",
            "f32[..., {}]",
        )
        if kind.rank == 2:
            x = reshape(cx.b, x, (kind.shape[0], 1, kind.shape[1]))
        elif self.batch_first:
            x = transpose(cx.b, x, (1, 0, 2))
        length, rows, _ = type_of(cx, x).shape
        begin = [self._start(cx, s, slot, rows, kind) for slot, s in enumerate(starts)]
        mask = None if lengths is None else self._mask(cx, lengths, length, rows)
        directions = 2 if self.bidirectional else 1
        lasts: list[list[Value]] = [[] for _ in begin]
        for layer in range(self.num_layers):
            outputs = []
            for way in range(directions):
                at = layer * directions + way
                state = [self._row(cx, s, at, rows) for s in begin]
                y, last = self._scan(cx, x, state, mask, layer, way == 1)
                outputs.append(y)
                for all_lasts, value in zip(lasts, last, strict=True):
                    all_lasts.append(value)
            x = cx.b(Concatenate(2), *outputs) if len(outputs) > 1 else outputs[0]
            if self.dropout and cx.training and layer + 1 < self.num_layers:
                x = dropout(cx.b, x, self.dropout, cx.random_key())
        final = tuple(self._stacked(cx, each, kind) for each in lasts)
        if kind.rank == 2:
            return reshape(cx.b, x, (length, type_of(cx, x).shape[-1])), final
        return (transpose(cx.b, x, (1, 0, 2)) if self.batch_first else x), final

    def _start(
        self, cx: LayerContext, state: Value | None, slot: int, rows: DimLike, kind: TensorType
    ) -> Value:
        """The initial states [layers * directions, N, hidden]. Raises RejectError (E0201) for others."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        whole = (count, rows, self.hidden_size)
        if state is None:
            return full(cx.b, 0.0, whole, kind.dtype)
        wanted = kind.with_shape(whole if kind.rank == 3 else (count, self.hidden_size))
        if type_of(cx, state) != wanted:
            raise RejectError(
                f"{cx.what} needs {wanted} as initial state and gets {type_of(cx, state)}",
                code="E0201",
                operand=slot + 1,
            )
        return reshape(cx.b, state, whole)

    def _mask(self, cx: LayerContext, lengths: Value, length: DimLike, rows: DimLike) -> Value:
        """bool [T, N]: whether a sequence is not over at a step. Raises RejectError (E0201)."""
        kind = type_of(cx, lengths)
        if kind.shape != (rows,) or not kind.dtype.is_int:
            raise RejectError(
                f"{cx.what} needs lengths i64[{rows}] and gets {kind}",
                code="E0201",
                argument="lengths",
            )
        steps = cx.b(Iota(kind.dtype, (length, rows), 0))
        return cx.b(Compare("lt"), steps, cx.b(BroadcastInDim((length, rows), (1,)), lengths))

    def _row(self, cx: LayerContext, states: Value, at: int, rows: DimLike) -> Value:
        one = slice_axis(cx.b, states, 0, at, at + 1)
        return reshape(cx.b, one, (rows, self.hidden_size))

    def _stacked(self, cx: LayerContext, states: Sequence[Value], kind: TensorType) -> Value:
        rows = type_of(cx, states[0]).shape[0]
        one = [reshape(cx.b, s, (1, rows, self.hidden_size)) for s in states]
        whole = cx.b(Concatenate(0), *one) if len(one) > 1 else one[0]
        return whole if kind.rank == 3 else reshape(cx.b, whole, (len(one), self.hidden_size))

    def _scan(
        self,
        cx: LayerContext,
        x: Value,
        states: Sequence[Value],
        mask: Value | None,
        layer: int,
        reverse: bool,
    ) -> tuple[Value, States]:
        """One layer in one direction over x [T, N, D]: its outputs [T, N, hidden] and its last states."""
        b, kind = cx.b, type_of(cx, x)
        size = fixed(cx, kind.shape[-1], "input features")
        suffix = f"l{layer}{'_reverse' if reverse else ''}"
        wide, init = self.gates * self.hidden_size, uniform_bound(self.hidden_size)

        def parameter(name: str, *shape: int) -> Value:
            return cx.parameter(f"{name}_{suffix}", shape, init, dtype=kind.dtype)

        weight_x = parameter("weight_ih", wide, size)
        weight_h = parameter("weight_hh", wide, self.hidden_size)
        projected = linear(b, x, weight_x)
        late = []  # the hidden state's bias, where the cell needs it by itself
        if self.bias:
            bias_x, bias_h = parameter("bias_ih", wide), parameter("bias_hh", wide)
            if self.separate:
                late.append(bias_h)
            else:
                bias_x = b(Add(), bias_x, bias_h)
            projected = add_along(b, projected, bias_x, 2)
        body = GraphBuilder("step", b.dims)

        def enter(label: str, kind: TensorType) -> Value:
            return body(Input(label, kind.dtype, kind.shape))

        sequences = [projected, *([] if mask is None else [mask])]
        steps = []
        for label, sequence in zip(("x", "mask"), sequences, strict=False):
            whole = type_of(cx, sequence)
            steps.append(enter(label, whole.with_shape(whole.shape[1:])))
        labels = ("h", "c")[: len(states)]
        old = tuple(enter(n, type_of(cx, s)) for n, s in zip(labels, states, strict=True))
        w = enter("weight_hh", type_of(cx, weight_h))
        h = linear(body, old[0], w)
        for bias in late:
            h = add_along(body, h, enter("bias_hh", type_of(cx, bias)), 1)
        new = self.cell(body, steps[0], h, old)
        out = new[0]
        if mask is not None:
            shape = type_of(cx, states[0]).shape
            live = body(BroadcastInDim(shape, (0,)), steps[1])
            out = body(Select(), live, out, full(body, 0.0, shape, kind.dtype))
            new = tuple(
                body(Select(), live, after, before) for after, before in zip(new, old, strict=True)
            )
        step = close(body, [*zip(labels, new, strict=True), ("y", out)])
        op = Scan(step, kind.shape[0], len(sequences), len(states), reverse)
        *last, y = b.emit(op, *sequences, *states, weight_h, *late)
        return y, tuple(last)

    def _gate(self, b: GraphBuilder, z: Value, index: int) -> Value:
        """The features of one gate."""
        n = self.hidden_size
        return slice_axis(b, z, b.type_of(z).rank - 1, index * n, (index + 1) * n)


class _OneState(_Recurrent):
    """Gives `(output, h_n)`."""

    def apply(
        self,
        cx: LayerContext,
        x: Value,
        h_0: Value | None = None,
        *,
        lengths: Value | None = None,
    ) -> tuple[Value, Value]:
        """Applies the layer."""
        y, (last,) = self.run(cx, x, (h_0,), lengths)
        return y, last


@dataclass(frozen=True)
class RNN(_OneState):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu with `nonlinearity="relu"` (Elman 1990).

    Source: `torch.nn.RNN`.
    """

    nonlinearity: Literal["tanh", "relu"] = "tanh"

    gates: ClassVar[int] = 1

    def cell(self, b: GraphBuilder, x: Value, h: Value, rest: States) -> States:
        """The sum, bent."""
        return (b(Tanh() if self.nonlinearity == "tanh" else Relu(), b(Add(), x, h)),)


@dataclass(frozen=True)
class LSTM(_Recurrent):
    """Long short-term memory: gates i, f, g, o; c = f c + i g, h = o tanh(c) (Hochreiter & Schmidhuber 1997).

    Gives `(output, (h_n, c_n))`; initial states are `h_0` and `c_0`, both or none. Source: `torch.nn.LSTM` without
    `proj_size`.
    """

    gates: ClassVar[int] = 4

    def apply(
        self,
        cx: LayerContext,
        x: Value,
        h_0: Value | None = None,
        c_0: Value | None = None,
        *,
        lengths: Value | None = None,
    ) -> tuple[Value, tuple[Value, Value]]:
        """Applies the layer."""
        if (h_0 is None) != (c_0 is None):
            raise RejectError(
                f"{cx.what} has two states, and gets one of them",
                code="E0409",
                help="write `(x, h_0, c_0) -> ...`",
            )
        y, last = self.run(cx, x, (h_0, c_0), lengths)
        return y, cast(tuple[Value, Value], last)

    def cell(self, b: GraphBuilder, x: Value, h: Value, rest: States) -> States:
        """Gates from the sum."""
        z = b(Add(), x, h)
        i, f, o = (b(Logistic(), self._gate(b, z, k)) for k in (0, 1, 3))
        g = b(Tanh(), self._gate(b, z, 2))
        c = arith.add(b, arith.multiply(b, f, rest[1]), arith.multiply(b, i, g))
        return arith.multiply(b, o, b(Tanh(), c)), c


@dataclass(frozen=True)
class GRU(_OneState):
    """Gated recurrent unit: gates r, z, n; h = (1 - z) n + z h, the reset after the product (Cho et al. 2014).

    Source: `torch.nn.GRU`.
    """

    gates: ClassVar[int] = 3
    separate: ClassVar[bool] = True

    def cell(self, b: GraphBuilder, x: Value, h: Value, rest: States) -> States:
        """The new gate takes the hidden state's part times r."""
        r, z = (b(Logistic(), b(Add(), self._gate(b, x, k), self._gate(b, h, k))) for k in (0, 1))
        reset = arith.multiply(b, r, self._gate(b, h, 2))
        n = b(Tanh(), b(Add(), self._gate(b, x, 2), reset))
        kept = arith.multiply(b, arith.subtract(b, 1.0, z), n)
        return (arith.add(b, kept, arith.multiply(b, z, rest[0])),)


LAYERS = layer_classes("Recurrent", RNN, LSTM, GRU)
"""The layers of this file."""
