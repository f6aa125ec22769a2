"""Gradients and steps of training for `gpu.py`: ours with its state on the device, PyTorch's by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LR, MOMENTUM = 0.01, 0.9
"""Of SGD, as in `train_workloads.py`."""

STEPS = 3
"""Steps after which losses are compared, each on the same batch."""


class Ours:
    """A module that is a step: `call()` repeats it, `losses` are those of the first steps."""

    def __init__(self, module: Any, inputs: dict[str, torch.Tensor], stream: int | None) -> None:
        state = module.initial_state()
        if stream is None:  # arrays of the host, which the step overwrites
            given = {**{n: x.numpy() for n, x in inputs.items()}, **state}
            self.call: Callable[[], Any] = lambda: module.run(given)
            self.losses = [float(self.call()["loss"]) for _ in range(STEPS)]
            return
        self._state = module.upload(state, stream=stream)
        bound = module.bind({**inputs, **self._state}, stream=stream)
        self.call = bound
        self.losses = []
        for _ in range(STEPS):
            bound()
            self.losses.append(float(bound.outputs["loss"].numpy()))


class Theirs:
    """A twin in training, on weights of its own."""

    def __init__(
        self, twin: torch.nn.Module, inputs: dict[str, torch.Tensor], dtype: torch.dtype
    ) -> None:
        for part in twin.modules():  # what cannot be compared
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
            if isinstance(part, torch.nn.MultiheadAttention):
                part.dropout = 0.0
        self.twin, self.dtype = twin.train(), dtype
        *self.inputs, self.label = inputs.values()
        self.inputs = [
            x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
            for x in self.inputs
        ]
        self.optimizer = torch.optim.SGD(twin.parameters(), lr=LR, momentum=MOMENTUM)

    def step(self) -> torch.Tensor:
        """One update; returns the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        narrow = self.dtype is not torch.float32
        with torch.autocast(self.label.device.type, self.dtype, enabled=narrow):
            logits = self.twin(*self.inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), self.label)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def losses(self) -> list[float]:
        """The losses of the first steps."""
        return [float(self.step()) for _ in range(STEPS)]


def difference(found: list[float], expected: list[float]) -> float:
    """The largest difference of two runs of losses, as a share of the first loss."""
    worst = max(abs(a - b) for a, b in zip(found, expected, strict=True)) / abs(expected[0])
    return worst if worst == worst else float("inf")


def attention_gradient(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, given: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Attention there and back, by autograd."""
    attend = torch.nn.functional.scaled_dot_product_attention
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        return torch.autograd.grad(attend(*leaves), leaves, given.clone())
