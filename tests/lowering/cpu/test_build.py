"""Object code: what it refers to, that it repeats, that partitions link together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.lowering.cpu import emit
from graphc.lowering.cpu.build import compile_object, compile_objects
from graphc.lowering.cpu.emit import const, kernel
from graphc.lowering.cpu.features import CpuTarget

from .harness import TARGETS, can_run, load, target_id

ROOT = Path(__file__).resolve().parents[3]


def adder(name: str, amount: float) -> object:
    """A public kernel that adds a constant in parallel."""
    with kernel(name, {"x": "float32", "y": "float32"}, dims=("n",), public=True) as k:
        n = k.dim("n")
        x, y = k.view("x", (n,)), k.view("y", (n,))
        with emit.loop(n, parallel=True) as i:
            y.store(x.load((i,)) + const(amount, "float32"), (i,))
    return k.function


def symbols(code: bytes, folder: Path) -> dict[str, str]:
    """Symbol -> kind, as `nm` prints them."""
    (folder / "k.o").write_bytes(code)
    done = subprocess.run(["nm", "k.o"], cwd=folder, check=True, capture_output=True, text=True)
    return {line.split()[-1]: line.split()[-2] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_an_object_needs_nothing_but_the_launcher(target: CpuTarget, tmp_path: Path) -> None:
    found = symbols(compile_object({"add": adder("add", 1.0)}, target), tmp_path)
    assert found["add"] == "T"
    assert found["__TVMBackendParallelLaunch"] == "V"
    assert not [name for name, kind in found.items() if kind == "U"]


def test_equal_input_gives_equal_bytes_in_every_process() -> None:
    script = (
        "import hashlib, sys; sys.path[:0] = [sys.argv[1]];"
        "from graphc.lowering import toolkit; toolkit.load();"
        "from tests.lowering.cpu.test_build import adder;"
        "from graphc.lowering.cpu.build import compile_objects;"
        "from graphc.lowering.cpu.features import parse_target;"
        "parts = [{n: adder(n, float(i)) for i, n in enumerate(names)} for names in ('ab', 'cd')];"
        "objects = compile_objects(parts, parse_target('x86-64-v4'));"
        "print(hashlib.sha256(b''.join(objects)).hexdigest())"
    )
    digests = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(ROOT)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_partitions_call_each_other_by_symbol(tmp_path: Path) -> None:
    target = TARGETS[0]
    with kernel("outer", {"x": "float32", "y": "float32"}, dims=("n",), public=True) as k:
        n = k.dim("n")
        x, y = k.view("x", (n,)), k.view("y", (n,))
        emit.call_symbol("add", x.address((0,)), y.address((0,)), n)
    objects = compile_objects([{"outer": k.function}, {"add": adder("add", 2.0)}], target)
    assert len(objects) == 2
    if not can_run(target):
        return
    call = load(objects, "outer", tmp_path)
    x_array, y_array = np.arange(9, dtype="float32"), np.zeros(9, "float32")
    call(x_array, y_array, 9)
    assert np.array_equal(y_array, x_array + 2)


def test_the_host_language_leaves_no_paths_in_the_object() -> None:
    code = compile_object({"add": adder("add", 1.0)}, TARGETS[0])
    assert str(ROOT).encode() not in code
    assert str(Path.home()).encode() + b"/" not in code
