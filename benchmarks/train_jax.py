"""The networks of `train.py` in jax.numpy, on the weights of their PyTorch twins, and a jitted training step.

Written as XLA likes it: images and filters channels last, the input products of a recurrence as one, a step that
donates its state. Functions take `w`, the weights by the twin's names, and return logits and new running statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from train_workloads import Training

Weights = dict[str, Array]
Network = Callable[[Weights, Array], tuple[Array, Weights]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _linear(w: Weights, name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _conv(w: Weights, name: str, x: Array, stride: int, pad: int) -> Array:
    filters = w[f"{name}.weight"]
    padding = [(pad, pad)] * 2
    y = lax.conv_general_dilated(x, filters, (stride, stride), padding, dimension_numbers=_LAYOUT)
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def _pool(x: Array, first: float, join: Any, window: int, stride: int, pad: int = 0) -> Array:
    padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return lax.reduce_window(
        x, first, join, (1, window, window, 1), (1, stride, stride, 1), padding
    )


def _norm(w: Weights, name: str, x: Array) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def _batch_norm(w: Weights, new: Weights, name: str, x: Array) -> Array:
    """With the batch's statistics; the running ones, unbiased, go to `new`."""
    mean = x.mean((0, 1, 2))
    variance = jnp.square(x - mean).mean((0, 1, 2))
    count = x.size // x.shape[-1]
    for key, now in (("mean", mean), ("var", variance * (count / (count - 1)))):
        new[f"{name}.running_{key}"] = 0.9 * w[f"{name}.running_{key}"] + 0.1 * now
    scale = w[f"{name}.weight"] * lax.rsqrt(variance + 1e-5)
    return (x - mean) * scale + w[f"{name}.bias"]


def mlp(inputs: int, hidden: list[int], classes: int) -> Network:
    def run(w: Weights, x: Array) -> tuple[Array, Weights]:
        for i in range(1, len(hidden) + 1):
            x = jax.nn.relu(_linear(w, f"fc{i}", x))
        return _linear(w, "head", x), {}

    return run


def lenet() -> Network:
    def run(w: Weights, x: Array) -> tuple[Array, Weights]:
        for name, pad in (("conv1", 2), ("conv2", 0)):
            x = _pool(jnp.tanh(_conv(w, name, x, 1, pad)), 0.0, lax.add, 2, 2) / 4
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # features in the twin's order
        for name in ("fc1", "fc2"):
            x = jnp.tanh(_linear(w, name, x))
        return _linear(w, "fc3", x), {}

    return run


def resnet(counts: list[int], expansion: int, classes: int, width: int) -> Network:
    assert expansion == 1

    def run(w: Weights, x: Array) -> tuple[Array, Weights]:
        new: Weights = {}
        x = jax.nn.relu(_batch_norm(w, new, "bn1", _conv(w, "conv1", x, 2, 3)))
        x = _pool(x, -jnp.inf, lax.max, 3, 2, 1)
        for i, count in enumerate(counts, 1):
            for j in range(count):
                at, stride = f"layer{i}.{j}", 2 if i > 1 and j == 0 else 1
                y = _batch_norm(w, new, f"{at}.bn1", _conv(w, f"{at}.conv1", x, stride, 1))
                y = _conv(w, f"{at}.conv2", jax.nn.relu(y), 1, 1)
                y = _batch_norm(w, new, f"{at}.bn2", y)
                if f"{at}.downsample.0.weight" in w:
                    x = _conv(w, f"{at}.downsample.0", x, stride, 0)
                    x = _batch_norm(w, new, f"{at}.downsample.1", x)
                x = jax.nn.relu(x + y)
        return _linear(w, "fc", x.mean((1, 2))), new

    return run


def transformer(
    vocab: int, width: int, heads: int, layers: int, feedforward: int, classes: int
) -> Network:
    def attention(w: Weights, name: str, x: Array) -> Array:
        n, t, _ = x.shape
        qkv = x @ w[f"{name}.in_proj_weight"].T + w[f"{name}.in_proj_bias"]
        q, k, v = (p.reshape(n, t, heads, -1) for p in jnp.split(qkv, 3, axis=2))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / (width // heads) ** 0.5
        y = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), v)
        return _linear(w, f"{name}.out_proj", y.reshape(n, t, width))

    def run(w: Weights, tokens: Array) -> tuple[Array, Weights]:
        t = tokens.shape[1]
        frequency = jnp.exp(jnp.arange(0, width, 2) * (-jnp.log(10000.0) / width))
        angle = jnp.arange(t)[:, None] * frequency
        waves = jnp.stack([jnp.sin(angle), jnp.cos(angle)], 2).reshape(t, width)
        h = w["embed.weight"][tokens] * width**0.5 + waves
        for i in range(layers):
            at = f"layers.{i}"
            h = h + attention(w, f"{at}.self_attn", _norm(w, f"{at}.norm1", h))
            f = _linear(w, f"{at}.linear1", _norm(w, f"{at}.norm2", h))
            h = h + _linear(w, f"{at}.linear2", jax.nn.gelu(f, approximate=False))
        return _linear(w, "head", _norm(w, "norm", h).mean(1)), {}

    return run


def language(vocab: int, width: int) -> Network:
    def run(w: Weights, tokens: Array) -> tuple[Array, Weights]:
        x = w["embed.weight"][tokens.T]  # time first
        x = x @ w["lstm.weight_ih_l0"].T + (w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"])

        def cell(carry: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = carry
            i, f, g, o = jnp.split(gates + h @ w["lstm.weight_hh_l0"].T, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((tokens.shape[0], width), x.dtype)
        _, h = lax.scan(cell, (zeros, zeros), x)
        return _linear(w, "head", h.transpose(1, 0, 2)), {}

    return run


NETWORKS: dict[str, Callable[..., Network]] = {
    "MLP": mlp,
    "LeNet": lenet,
    "ResNet": resnet,
    "TransformerEncoder": transformer,
    "LSTMLanguage": language,
}
"""By the name of the twin; arguments are the twin's."""


def stepper(work: Training) -> Callable[[], float]:
    """The step: SGD with momentum on the cross entropy, all of it one jitted function."""
    name, arguments = work.twin[0].split(":")[1], work.twin[1]
    network = NETWORKS[name](*arguments)
    twin = work.make_twin()
    trained = [k for k, _ in twin.named_parameters()]
    state = {}
    for key, value in twin.state_dict().items():
        array = value.numpy()
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        if array.ndim:
            state[key] = jnp.array(array)
    del twin
    momenta = {k: jnp.zeros_like(state[k]) for k in trained}
    inputs, label = (jnp.array(x) for x in work.draw().values())
    if inputs.ndim == 4:
        inputs = jnp.array(inputs.transpose(0, 2, 3, 1))

    def loss_of(weights: Weights, buffers: Weights, x: Array, y: Array) -> tuple[Array, Weights]:
        logits, new = network(weights | buffers, x)
        logs = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(logs, y[..., None], -1).mean(), new

    def update(state: Weights, momenta: Weights, x: Array, y: Array) -> Any:
        weights = {k: state[k] for k in trained}
        buffers = {k: v for k, v in state.items() if k not in weights}
        (loss, new), slope = jax.value_and_grad(loss_of, has_aux=True)(weights, buffers, x, y)
        momenta = {k: work.momentum * momenta[k] + slope[k] for k in trained}
        weights = {k: weights[k] - work.lr * momenta[k] for k in trained}
        return loss, weights | buffers | new, momenta

    run = jax.jit(update, donate_argnums=(0, 1))
    held = [state, momenta]
    del state, momenta

    def step() -> float:
        loss, *held[:] = run(*held, inputs, label)
        return float(loss)

    return step
