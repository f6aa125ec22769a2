"""A step in NumPy for tests of the loop: logistic regression with momentum, and noise whose key is in the state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.train.ports import port

FEATURES, CLASSES = 5, 3
PORTS = (
    port("x", "f32", "N", FEATURES),
    port("label", "i64", "N", target=True, classes=CLASSES),
)
Arrays = Mapping[str, np.ndarray]


class FakeStep:
    """Fulfils `Step`; the noise makes an update depend on how many there were before it."""

    def __init__(self, seed: int = 0, ports: tuple = PORTS) -> None:
        rng = np.random.default_rng(seed)
        self.ports = ports
        self.runs = 0
        self._state = {
            "fc.weight": rng.standard_normal((CLASSES, FEATURES)).astype(np.float32),
            "fc.bias": np.zeros(CLASSES, np.float32),
            "momentum_buffer.fc.weight": np.zeros((CLASSES, FEATURES), np.float32),
            "rng": np.array([seed, 0], np.int64),
        }

    def run(self, batch: Arrays) -> dict[str, np.ndarray]:
        s = self._state
        self.runs += 1
        x, label = batch["x"], batch["label"]
        noise = np.random.Generator(np.random.Philox(key=s["rng"].astype(np.uint64)))
        noisy = x + np.float32(0.1) * noise.standard_normal(x.shape, np.float32)
        logits, loss = self._forward(noisy, label)
        if not np.isfinite(loss):
            return {"loss": np.array(loss), "lr": np.array(0.1)}
        slope = np.exp(logits - logits.max(1, keepdims=True))
        slope /= slope.sum(1, keepdims=True)
        slope[np.arange(len(label)), label] -= 1
        slope /= len(label)
        velocity = s["momentum_buffer.fc.weight"]
        velocity[...] = np.float32(0.9) * velocity + slope.T @ noisy
        s["fc.weight"] -= np.float32(0.1) * velocity
        s["fc.bias"] -= np.float32(0.1) * slope.sum(0)
        s["rng"][1] += 1
        accuracy = np.float32((logits.argmax(1) == label).mean())
        rate = np.float64(0.1 / s["rng"][1])
        return {"loss": np.array(loss), "accuracy": np.array(accuracy), "lr": np.array(rate)}

    def evaluate(self, batch: Arrays) -> dict[str, np.ndarray]:
        logits, loss = self._forward(batch["x"], batch["label"])
        return {"loss": np.array(loss), "logits": logits}

    def blame(self, batch: Arrays) -> str:
        return "" if np.isfinite(batch["x"]).all() else "divide of `norm`"

    def state(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._state.items()}

    def load_state(self, state: Arrays) -> None:
        for name, array in self._state.items():
            array[...] = state[name]

    def weights(self, *, average: bool = False) -> dict[str, np.ndarray]:
        return {n: a.copy() + average for n, a in self._state.items() if n.startswith("fc.")}

    @np.errstate(invalid="ignore")
    def _forward(self, x: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.float32]:
        logits = x @ self._state["fc.weight"].T + self._state["fc.bias"]
        high = logits.max(1, keepdims=True)
        logs = np.log(np.exp(logits - high).sum(1)) + high[:, 0]
        return logits, np.float32((logs - logits[np.arange(len(label)), label]).mean())


def blobs(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Three overlapping clouds of points, as data for the step."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, rows)
    centres = np.random.default_rng(99).standard_normal((CLASSES, FEATURES)) * 1.5
    x = (centres[label] + rng.standard_normal((rows, FEATURES))).astype(np.float32)
    return {"x": x, "label": label}
