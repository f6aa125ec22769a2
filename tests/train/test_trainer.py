"""Training steps against PyTorch: the same weights, the same batches, the same numbers after many updates."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphc
from graphc.optim import SGD, ArgumentError, Rule
from graphc.train.errors import StateError
from graphc.train.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]

NET = """
model Net {
    input image: f32[N, 3, 8, 8]
    h = image -> conv1: Conv2d(8, 3, padding=1, bias=false) -> bn1: BatchNorm2d -> ReLU -> MaxPool2d(2)
    h = h -> conv2: Conv2d(12, 3, stride=2, bias=false) -> bn2: BatchNorm2d(momentum=0.3) -> Tanh
    output logits = h -> Flatten -> fc: Linear(5)
}

train Net {
    input label: i64[N]
    loss -mean(gather(log_softmax(logits, dim=1), 1, reshape(label, [N, 1])))
    metric accuracy = mean(astype(argmax(logits, dim=1) == label, f32))
    optimizer AdamW(lr=1e-2, weight_decay=0.1, clip_norm=1.0, no_decay=["*.bias"])
    schedule warmup(4) -> cosine(total=40)
    FREEZE
}
"""


class Twin(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.conv2 = torch.nn.Conv2d(8, 12, 3, stride=2, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(12, momentum=0.3)
        self.fc = torch.nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)
        return self.fc(torch.tanh(self.bn2(self.conv2(h))).flatten(1))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(model(tmp_path_factory.mktemp("net")), threads=2)


def model(folder: Path, freeze: str = "", text: str = NET) -> graphc.Model:
    path = folder / "net.nn"
    path.write_text(text.replace("FREEZE", freeze))
    return graphc.load(path)


def batches(count: int, rows: int = 6) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    return [
        {
            "image": rng.standard_normal((rows, 3, 8, 8)).astype(np.float32),
            "label": rng.integers(0, 5, rows),
        }
        for _ in range(count)
    ]


def twin_of(trainer: Trainer) -> Twin:
    twin = Twin()
    state = {k: torch.from_numpy(v) for k, v in trainer.weights().items()}
    twin.load_state_dict(state, strict=False)
    return twin.train()


def test_a_run_of_updates_is_pytorchs(trainer: Trainer) -> None:
    twin = twin_of(trainer)
    decay = [p for n, p in twin.named_parameters() if not n.endswith("bias")]
    rest = [p for n, p in twin.named_parameters() if n.endswith("bias")]
    optimizer = torch.optim.AdamW(
        [{"params": decay}, {"params": rest, "weight_decay": 0.0}], lr=1e-2, weight_decay=0.1
    )
    for step, batch in enumerate(batches(12, 6) + batches(1, 3)):
        found = trainer.run(batch)
        for group in optimizer.param_groups:
            group["lr"] = float(found["lr"])
        logits = twin(torch.from_numpy(batch["image"]))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch["label"]))
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        assert float(found["loss"]) == pytest.approx(loss.item(), rel=2e-5), step
        assert float(found["grad_norm"]) == pytest.approx(norm.item(), rel=2e-4), step
        right = (logits.argmax(1).numpy() == batch["label"]).mean()
        assert float(found["accuracy"]) == pytest.approx(right)
    for name, value in twin.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        ours = trainer.weights()[name]
        scale = max(float(value.abs().max()), 1e-3)
        assert np.abs(ours - value.numpy()).max() <= 2e-4 * scale, name
    twin.eval()
    batch = batches(1)[0]
    with torch.no_grad():
        want = twin(torch.from_numpy(batch["image"])).numpy()
    np.testing.assert_allclose(trainer.evaluate(batch)["logits"], want, rtol=2e-3, atol=2e-4)


def test_the_state_is_all_there_is(trainer: Trainer) -> None:
    one, two = batches(2)
    before = trainer.state()
    first = [trainer.run(b)["loss"] for b in (one, two)]
    after = trainer.state()
    trainer.load_state(before)
    assert [trainer.run(b)["loss"] for b in (one, two)] == first
    assert all((after[name] == value).all() for name, value in trainer.state().items())
    with pytest.raises(StateError, match="lacks"):
        trainer.load_state({k: v for k, v in before.items() if k != "step"})
    with pytest.raises(StateError, match="unknown"):
        trainer.load_state({**before, "other": np.zeros(1)})
    with pytest.raises(StateError, match="expected"):
        trainer.load_state({**before, "step": np.zeros(1)})


def test_a_loss_that_is_not_finite_changes_nothing(trainer: Trainer) -> None:
    (batch,) = batches(1)
    batch["image"][2, 1, 3, 3] = np.inf
    before = trainer.state()
    assert not np.isfinite(trainer.run(batch)["loss"])
    after = trainer.state()
    assert all((after[name] == value).all() for name, value in before.items())
    assert "`conv1`" in trainer.blame(batch) and "net.nn:4" in trainer.blame(batch)
    assert trainer.blame(batches(1)[0]) == ""


def test_ports_know_their_classes(trainer: Trainer) -> None:
    assert [(p.name, p.target, p.classes) for p in trainer.ports] == [
        ("image", False, None),
        ("label", True, 5),
    ]


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    trainer = Trainer(model(tmp_path, "freeze conv1, bn*"), seed=3)
    assert set(trainer.step.trained) == {"conv2.weight", "fc.weight", "fc.bias"}
    assert not trainer.step.buffers
    assert not [name for name in trainer.state() if "conv1" in name or "bn" in name]
    before = trainer.weights()
    for batch in batches(3):
        trainer.run(batch)
    for name, value in trainer.weights().items():
        changed = bool((value != before[name]).any())
        assert changed == (name in trainer.step.trained), name
    with pytest.raises(ArgumentError, match="leaves no parameter to train"):
        Trainer(model(tmp_path, "freeze *"))


def test_a_model_without_a_block_is_trained_by_an_output(tmp_path: Path) -> None:
    text = """
    model Line {
        input x: f32[N, 2]
        input y: f32[N, 1]
        error = (x -> fc: Linear(1)) - y
        output loss = mean(error * error)
        output worst = max(abs(error))
    }
    """
    line = model(tmp_path, text=text)
    trainer = Trainer(line, loss="loss", rule=Rule(SGD(lr=0.2)), metrics=("worst",))
    x = np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32)
    y = x @ np.array([[2.0], [-1.0]], np.float32) + 0.5
    for _ in range(100):
        found = trainer.run({"x": x, "y": y})
    assert found["loss"] < 1e-6 and found["worst"] < 1e-2
    np.testing.assert_allclose(trainer.weights()["fc.weight"], [[2, -1]], atol=1e-3)
    with pytest.raises(StateError, match="optimizer"):
        Trainer(line, loss="loss")


def test_a_step_on_its_own_trains_without_graphc(trainer: Trainer, tmp_path: Path) -> None:
    step = graphc.open(trainer.save(tmp_path / "module"))
    state = step.initial_state()
    trainer.load_state(state)
    assert state["step"] == 0 and state["fc.weight"].any()
    for batch in batches(3):
        assert step(**batch, **state)["loss"] == trainer.run(batch)["loss"]
    assert all((state[name] == value).all() for name, value in trainer.state().items())
    (tmp_path / "image").write_bytes(batches(1)[0]["image"].tobytes())
    (tmp_path / "label").write_bytes(batches(1)[0]["label"].tobytes())
    folder = tmp_path / "module"
    build = ["cc", "-O1", "example.c", "module.so", "-Wl,-rpath,$ORIGIN", "-o", "example"]
    subprocess.run(build, cwd=folder, check=True)
    files = [f"{n}={tmp_path / n}" for n in ("image", "label", "fc.weight", "step")]
    for _ in range(
        2
    ):  # the second run goes on with the weights and the count of the first, other state starts anew
        subprocess.run(["./example", "N=6", "steps=20", *files], cwd=folder, check=True)
    assert np.fromfile(tmp_path / "step", np.int64) == 40
