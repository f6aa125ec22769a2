"""Makes what the contenders load, in `build/bench/`: weights, inputs, expected outputs, ONNX file, compiled module.

Everything is kept until what it was made from changes (content hashes). Run as a program, with a workload's name, a
target and a precision, it makes what is missing in a process of its own: the one that times never imports PyTorch or
the compiler.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from workloads import ROOT, Workload, find

BUILD = ROOT / "build" / "bench"
SEED = 0


def version(package: str) -> str:
    """The installed version, or "" when it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _compiler() -> str:
    """A hash of the compiler's own files."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "graphc").rglob("*")):
        if path.suffix in (".py", ".c", ".h", ".lark", ".nn"):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Prepared:
    """Where the files of one workload are, and whether they are up to date."""

    def __init__(self, workload: Workload, target: str, precision: str = "f32") -> None:
        folder = BUILD / workload.model
        own = folder / workload.variant
        self.workload, self.target, self.precision = workload, target, precision
        self.weights = folder / "weights.safetensors"
        self.feeds = own / "feeds.npz"
        self.expected = own / "expected.npz"
        self.onnx = own / "model.onnx"
        self.module = own / f"module-{target}-{precision}"
        twin = _hash(
            workload.twin, workload.twin_file.read_text(encoding="utf-8"), version("torch"), SEED
        )
        run = _hash(twin, workload.feeds)
        model = _hash(twin, workload.source, workload.settings, workload.dims)
        module = _hash(model, target, precision, _compiler())
        self._keys = {
            self.weights: twin,
            self.feeds: run,
            self.expected: run,
            self.onnx: _hash(run, version("onnx")),
            self.module: module,
        }

    def fresh(self, path: Path) -> bool:
        """Whether the file is there and was made from what it would be made from now."""
        return path.exists() and self.note(path).get("key") == self._keys[path]

    @property
    def complete(self) -> bool:
        return all(map(self.fresh, self._keys))

    @property
    def usable(self) -> bool:
        """Whether everything but the module is up to date, and there is some module."""
        return all(self.fresh(p) for p in self._keys if p != self.module) and bool(
            self.note(self.module)
        )

    def note(self, path: Path) -> dict[str, Any]:
        """What was written down when the file was made."""
        try:
            found = json.loads(path.with_name(path.name + ".key").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def make(self, path: Path, maker: Callable[[Path], None]) -> None:
        """Calls `maker` unless the file is fresh; an interrupted one leaves nothing that looks complete."""
        if self.fresh(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        key = path.with_name(path.name + ".key")
        key.unlink(missing_ok=True)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        start = time.perf_counter()
        maker(path)
        note = {"key": self._keys[path], "seconds": time.perf_counter() - start}
        key.write_text(json.dumps(note), encoding="utf-8")


def prepare(workload: Workload, target: str, precision: str) -> None:
    """Makes every file of a workload that is missing or outdated."""
    files = Prepared(workload, target, precision)
    files.make(files.weights, lambda path: _save_weights(workload, path))
    files.make(files.feeds, lambda path: np.savez(path, **workload.draw()))
    if not (files.fresh(files.expected) and files.fresh(files.onnx)):
        twin, arguments = load_twin(workload, files.weights), tensors(workload.draw())
        files.make(files.expected, lambda path: np.savez(path, *outputs(twin(*arguments))))
        files.make(files.onnx, lambda path: _export(twin, arguments, path))
    files.make(files.module, lambda path: _compile(files, path))


def load_twin(workload: Workload, weights: Path) -> Any:
    """The twin with its weights, ready to run; gradients are off from then on."""
    import torch
    from safetensors.torch import load_file

    torch.set_grad_enabled(False)
    twin = workload.make_twin()
    twin.load_state_dict(load_file(weights))
    return twin


def tensors(arrays: dict[str, Any]) -> tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(a) for a in arrays.values())


def outputs(result: Any) -> list[Any]:
    """The arrays in what a twin returns."""
    return [r.numpy() for r in (result if isinstance(result, tuple) else (result,))]


def _save_weights(workload: Workload, path: Path) -> None:
    """Random weights under which signals neither die nor explode, and no two parameters can be mixed up unseen."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(SEED)
    twin = workload.make_twin()
    with torch.no_grad():
        for name, tensor in twin.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1)
            elif tensor.ndim == 1:
                tensor.uniform_(0.7, 1.3)
            elif tensor.ndim > 2:  # convolutions: He et al. 2015, as torchvision does
                torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu")
    save_file({k: v.contiguous() for k, v in twin.state_dict().items()}, path)


def _export(twin: Any, arguments: tuple[Any, ...], path: Path) -> None:
    """ONNX by tracing. Shapes are fixed, which no peer is slower for."""
    import torch

    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that ONNX does not have
    torch.onnx.export(twin, arguments, str(path), dynamo=False, opset_version=18)


def _compile(files: Prepared, path: Path) -> None:
    import graphc

    workload = files.workload
    source = path.parent / f"{workload.model}.nn"
    source.write_text(workload.source, encoding="utf-8")
    model = graphc.load(source, dims=workload.dims, **workload.settings)
    model.compile(files.weights, target=files.target, precision=files.precision).save(path)


def prepare_apart(
    workload: Workload, target: str, precision: str, *, reuse: bool = False
) -> Prepared:
    """Like `prepare`, in another process; with `reuse` a module of an older compiler will do.

    Raises RuntimeError with the end of its output when that fails.
    """
    files = Prepared(workload, target, precision)
    if not files.complete and not (reuse and files.usable):
        command = [sys.executable, "-W", "ignore", __file__, workload.name, target, precision]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = [x for x in (done.stdout + done.stderr).splitlines() if x.strip()]
            raise RuntimeError("\n".join(lines[-3:]) or f"exit status {done.returncode}")
    return files


if __name__ == "__main__":
    prepare(find(sys.argv[1]), sys.argv[2], sys.argv[3])
