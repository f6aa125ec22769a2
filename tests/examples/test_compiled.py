"""Every example, compiled: the module computes what its PyTorch twin computes, and stays inside its memory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import graphc
from graphc.artifact.header import BUILD_COMMAND
from graphc.lowering.cpu.features import detect_host, parse_target
from tests.examples.test_examples import CASES, EXAMPLES, TOLERANCE, _many, drawn, randomised

LEVELS = [
    level
    for level in ("x86-64-v3", "x86-64-v4")
    if not parse_target(level).supported_by(detect_host())
]


def compare(name: str, module: graphc.Module, twin: torch.nn.Module, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    inputs = {k: drawn(spec, rng) for k, spec in CASES[name].inputs.items()}
    with torch.no_grad():
        expected = _many(twin(*(torch.from_numpy(x) for x in inputs.values())))
    outputs = module(**inputs)
    assert tuple(outputs) == CASES[name].outputs
    for value, want in zip(outputs.values(), expected, strict=True):
        reference = want.numpy()
        assert value.shape == reference.shape
        assert np.abs(value - reference).max() <= TOLERANCE * np.abs(reference).max()


def compiled(name: str, target: str = "native") -> tuple[graphc.Module, torch.nn.Module]:
    torch.manual_seed(0)
    twin = randomised(CASES[name].twin())
    model = graphc.load(EXAMPLES / f"{name}.nn", **CASES[name].settings)
    weights = {k: v.numpy() for k, v in twin.state_dict().items()}
    return model.compile(weights=weights, target=target, threads=2), twin


@pytest.mark.parametrize("name", CASES)
def test_equals_its_twin_and_writes_nowhere_else(name: str) -> None:
    module, twin = compiled(name)
    compare(name, module, twin)
    with graphc.open(module.path, debug=True) as guarded:
        compare(name, guarded, twin, seed=1)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["lenet", "unet", "bert_base"])
def test_named_targets_equal_the_twin(name: str, level: str) -> None:
    compare(name, *compiled(name, level))


def test_named_dims_serve_any_size() -> None:
    module, twin = compiled("lenet")
    for n in (1, 2, 3, 7, 64):
        image = np.random.default_rng(n).normal(size=(n, 1, 28, 28)).astype(np.float32)
        with torch.no_grad():
            want = twin(torch.from_numpy(image)).numpy()
        got = module(image=image)["logits"]
        assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()
        one_by_one = np.concatenate([module(image=image[i : i + 1])["logits"] for i in range(n)])
        assert np.abs(one_by_one - got).max() <= 1e-6 * np.abs(got).max()


def test_c_computes_bit_for_bit_what_python_does(tmp_path: Path) -> None:
    module, _ = compiled("lenet")
    folder = module.save(tmp_path / "lenet")
    image = np.random.default_rng(0).normal(size=(1, 1, 28, 28)).astype(np.float32)
    image.tofile(tmp_path / "image.bin")
    run = {"cwd": folder, "check": True, "shell": True}
    subprocess.run(BUILD_COMMAND, **run)
    subprocess.run(f"./example N=1 image={tmp_path}/image.bin logits={tmp_path}/out.bin", **run)
    from_c = np.fromfile(tmp_path / "out.bin", np.float32)
    np.testing.assert_array_equal(from_c, module(image=image)["logits"][0])


def test_same_input_same_bytes(tmp_path: Path) -> None:
    first, _ = compiled("lenet")
    second, _ = compiled("lenet")
    for file in sorted(first.path.iterdir()):
        assert file.read_bytes() == (second.path / file.name).read_bytes(), file.name
