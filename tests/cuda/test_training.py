"""Training on the stand-in GPU: what the interpreter computes, and a state that stays where the steps are."""

import gc
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.reference import interpret
from graphc.train import Trainer
from graphc.train.errors import StateError
from tests.cuda.fake import emulated

MODEL = """model Small {
    input x: f32[N, 12]
    output logits = x -> fc: Linear(3)
}

train Small {
    input label: i64[N]
    loss cross_entropy(logits, label)
    optimizer SGD(lr=0.1, momentum=0.9)
}
"""


def test_the_state_stays_on_the_gpu(tmp_path: Path) -> None:
    (tmp_path / "small.nn").write_text(MODEL)
    model = graphc.load(tmp_path / "small.nn")
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(6, 12)).astype(np.float32), "label": rng.integers(0, 3, 6)}
    with emulated() as gpu:
        gc.collect()
        live = gpu.live
        trainer = Trainer(model, target="cuda", evaluation=False)
        truth = trainer.state()
        trainer.load_state(truth)

        graph = trainer.step.graph

        def stepped() -> dict[str, np.ndarray]:
            return interpret(graph, {**batch, **truth}, {})

        trainer.run(batch)  # moves the state
        expected = stepped()
        before = gpu.count("copies in"), gpu.count("copies out")
        for _ in range(3):
            found = trainer.run(batch)
            truth = {name: expected[name] for name in truth}
            expected = stepped()
            np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
        copied = gpu.count("copies in") - before[0], gpu.count("copies out") - before[1]
        assert copied[0] == 3 * len(batch) and copied[1] <= 3 * (len(found) + 1)  # and the faults
        state = trainer.state()
        for name, value in state.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
        measured = trainer.evaluate(batch)

        later = trainer.run(batch)["loss"]
        assert measured["loss"] == pytest.approx(later, rel=1e-5)  # before the weights change
        trainer.load_state(state)
        assert trainer.run(batch)["loss"] == later  # bit for bit
        assert trainer.weights()["fc.weight"].shape == (3, 12)
        with pytest.raises(StateError, match="lacks"):
            trainer.load_state({})
        del trainer  # a cycle, in whatever order its parts go
        gc.collect()
        assert gpu.live == live
