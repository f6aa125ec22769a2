"""Builds the pack that `gpu.py` measures on a machine with a GPU: modules, runner, PyTorch twins, in one file.

python benchmarks/build_gpu.py -o gpu_pack.tar.xz --target cuda:sm_90a
tar xf gpu_pack.tar.xz && python gpu_pack/gpu.py          # there: NumPy, PyTorch and this are enough
"""

from __future__ import annotations

import argparse
import json
import lzma
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_workloads import FULL, KERNELS, SMALL, Workload, parameter
from train_workloads import TRAININGS

import graphc
from graphc.artifact.manifest import file_sha256
from graphc.train import Trainer

HERE = Path(__file__).parent
ROOT = HERE.parent
PACK = "gpu_pack"
LIMIT = 60 << 20
"""Bytes that a pack may take."""

WINDOW = [{"id": lzma.FILTER_LZMA2, "preset": 3, "dict_size": 64 << 20, "nice_len": 273}]
"""Wide enough for the blocks that weights repeat."""


def build(workloads: Sequence[Workload], target: str, output: Path) -> dict[str, str]:
    """Writes the pack. A workload that cannot be compiled is left out; the result says why, by name."""
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="graphc-") as folder:
        root = Path(folder) / PACK
        for workload in workloads:
            start = time.perf_counter()
            try:
                compile_one(workload, target, root / "modules" / workload.name)
            except Exception as error:  # the others are worth measuring all the same
                failed[workload.name] = f"{type(error).__name__}: {error}"
                print(f"{workload.name}: {failed[workload.name]}", flush=True)
                continue
            print(f"{workload.name}: {time.perf_counter() - start:.1f} s", flush=True)
        (root / "pack.json").write_text(
            json.dumps(
                {
                    "target": target,
                    "graphc": graphc.__version__,
                    "modules": [w.name for w in workloads if w.name not in failed],
                    "small": all(w in SMALL for w in workloads),
                    "failed": failed,
                }
            )
        )
        add_runner(root)
        write_archive(root, output)
    return failed


def compile_one(workload: Workload, target: str, folder: Path) -> None:
    """Compiles one module, with the weights of `parameter`."""
    if workload.training:
        compile_training(workload, target, folder)
        return
    file = HERE / KERNELS if workload.file == KERNELS else ROOT / "examples" / f"{workload.file}.nn"
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = graphc.load(
        file, model=workload.model, dims=dict(workload.dims), **dict(workload.settings)
    )
    weights = {p.path: parameter(p.path, [int(d) for d in p.type.shape]) for p in model.parameters}
    model.compile(weights, folder, target=target, precision=workload.precision)  # type: ignore[arg-type]


def compile_training(workload: Workload, target: str, folder: Path) -> None:
    """Compiles a step of training at one batch size; its state begins with the weights of `parameter`."""
    (said,) = (t for n, t in TRAININGS.items() if n.split("-b")[0] == workload.training)
    dims = {**said.dims, "N": next(iter(workload.inputs.values())).shape[0]}
    with tempfile.TemporaryDirectory(prefix="graphc-") as place:
        file = Path(place) / f"{workload.training}.nn"
        file.write_text(said.text())
        model = graphc.load(file, model=said.name, dims=dims, **said.settings)
        weights = {
            p.path: parameter(p.path, [int(d) for d in p.type.shape]) for p in model.parameters
        }
        trainer = Trainer(
            model, weights, target=target, precision=workload.precision, evaluation=False
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    trainer.save(folder)


def add_runner(root: Path) -> None:
    """The runner with what it imports: workloads, twins, and the part of graphc that opens modules."""
    files = [
        *(HERE / n for n in ("gpu.py", "gpu_training.py", "gpu_workloads.py")),
        ROOT / "graphc" / "__init__.py",
    ]
    files += [*(ROOT / "graphc" / "artifact").glob("*.py")]
    files += [*(ROOT / "graphc" / "artifact" / "cuda").glob("*.py")]
    files += [ROOT / "tests" / "examples" / "twins" / n for n in ("vision.py", "language.py")]
    for file in files:
        inside = file.relative_to(ROOT)
        place = Path(*inside.parts[1:]) if inside.parts[0] == "benchmarks" else inside
        if inside.parts[0] == "tests":
            place = Path("twins", file.name)
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(file.read_bytes())


def write_archive(root: Path, output: Path) -> None:
    """One compressed file, in which files of equal content are one."""
    known: dict[str, str] = {}
    with (
        lzma.open(output, "wb", filters=WINDOW) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            info = tarfile.TarInfo(f"{PACK}/{path.relative_to(root)}")
            first = known.setdefault(file_sha256(path), info.name)
            if first != info.name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                archive.addfile(info)
                continue
            info.size, info.mode = path.stat().st_size, path.stat().st_mode & 0o777
            with path.open("rb") as file:
                archive.addfile(info, file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(f"{PACK}.tar.xz"))
    parser.add_argument("--target", default="cuda:sm_90a")
    parser.add_argument("--models", help="names, separated by commas; default: all")
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    given = parser.parse_args()
    workloads = SMALL if given.small else FULL
    if given.models:
        workloads = [w for w in workloads if w.name in given.models.split(",")]
    failed = build(workloads, given.target, given.output)
    size = given.output.stat().st_size
    print(f"{given.output}: {size / 1e6:.1f} MB, {len(workloads) - len(failed)} modules")
    if size > LIMIT:
        raise SystemExit(f"the pack is larger than {LIMIT >> 20} MB")


if __name__ == "__main__":
    main()
