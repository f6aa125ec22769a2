"""Measures a pack of `build_gpu.py` on an NVIDIA GPU against PyTorch: correctness first, then time by CUDA events.

    python gpu_pack/gpu.py [--output FILE] [--seconds 420]

Needs NumPy, PyTorch for CUDA and the pack. Everything goes to the output file as it comes; a short table is printed
last. Networks are compared with their PyTorch twins in f32, kernels with float64. `--device cpu` runs the same on a
machine without a GPU, with the stand-in driver of the tests: its times mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from gpu_training import Ours, Theirs, attention_gradient, difference  # noqa: E402
from gpu_workloads import FULL, KERNELS, SMALL, Workload, draw, parameter  # noqa: E402

import graphc  # noqa: E402

F = torch.nn.functional
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "tf32": torch.float32}
TOLERANCES = {"f32": 1e-4, "tf32": 5e-3, "f16": 1e-2, "bf16": 4e-2}
"""Largest error, as a share of the largest result."""
BATCHES, BATCH_SECONDS = 7, 0.1
"""Measured batches of calls, and how long each takes, about."""

KERNEL_OPS: dict[str, Callable[..., torch.Tensor]] = {
    "Gemm": lambda a, b: a @ b.T,
    "Attention": F.scaled_dot_product_attention,
    "Elementwise": lambda x, y: F.gelu(x) + y,
    "Softmax": lambda x: torch.softmax(x, 1),
    "WeightGradient": lambda given, x: given.T @ x,
    "Columns": lambda x: x.sum(0),
}
"""Products are those of cuBLAS (through PyTorch): the yardstick of ours."""
KERNEL_OPS["AttentionGradient"] = attention_gradient  # type: ignore[assignment]


class Runner:
    """Measures workloads one after another, and keeps what it finds in a file."""

    def __init__(self, device: str, seconds: float, output: Path) -> None:
        self.device, self.output = torch.device(device), output
        self.end = time.monotonic() + seconds
        self.results: dict[str, Any] = {"workloads": {}}
        self.pack = json.loads((HERE / "pack.json").read_text())
        self.on_gpu = device != "cpu"
        if self.on_gpu:
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            self.stream = torch.cuda.Stream()
            torch.cuda.set_stream(self.stream)

    def describe(self) -> None:
        """What this machine is."""
        about: dict[str, Any] = {
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d %H:%M"),
        }
        about["pack"] = self.pack
        if self.on_gpu:
            about["gpu"] = torch.cuda.get_device_name(0)
            about["capability"] = torch.cuda.get_device_capability(0)
            about["cuda of torch"] = torch.version.cuda
            about["copy GB/s"] = round(self.copy_bandwidth(), 1)
        self.results["machine"] = about
        self.save()
        print(json.dumps(about), flush=True)

    def copy_bandwidth(self) -> float:
        """GB/s of a copy of 1 GB, reads and writes together: what elementwise kernels are measured by."""
        x = torch.empty(1 << 28, device=self.device)
        y = torch.empty_like(x)
        return 2 * x.nbytes / self.seconds(lambda: y.copy_(x)) / 1e9

    def save(self) -> None:
        self.output.write_text(json.dumps(self.results, indent=1))

    def attempt(self, row: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
        """A part of the measurement: what goes wrong is noted, and the rest goes on."""
        try:
            return work()
        except Exception as error:
            row.setdefault("errors", {})[name] = f"{type(error).__name__}: {error}"[:600]
            traceback.print_exc(limit=-3)
            return None

    # ---- one workload

    def measure(self, w: Workload) -> None:
        """Correctness, our time, and PyTorch's eager time."""
        row: dict[str, Any] = {}
        self.results["workloads"][w.name] = row
        start = time.monotonic()
        inputs = self.inputs(w)
        if w.training:
            self.measure_training(w, inputs, row)
            row["seconds"] = round(time.monotonic() - start, 1)
            self.save()
            print(w.name, json.dumps(row), flush=True)
            return
        peer = self.attempt(row, "twin", lambda: self.peer(w))
        call = self.attempt(row, "ours", lambda: self.ours(w, inputs, peer, row))
        if call is not None:
            row["ours us"] = self.microseconds(row, "ours us", call)
        if peer is not None:
            cast = [self.as_peer_takes(w, x) for x in inputs.values()]
            with torch.inference_mode():
                row["eager us"] = self.microseconds(row, "eager", lambda: peer(*cast))
                if self.on_gpu:
                    replay = self.attempt(row, "graph", lambda: self.captured(peer, cast))
                    if replay is not None:
                        row["graph us"] = self.microseconds(row, "graph", replay)
        row["seconds"] = round(time.monotonic() - start, 1)
        self.save()
        print(w.name, json.dumps(row), flush=True)

    def measure_training(
        self, w: Workload, inputs: dict[str, torch.Tensor], row: dict[str, Any]
    ) -> None:
        """A step of training: losses of the first ones against PyTorch's in f32, then times."""
        precise = Theirs(self.peer(w, precise=True), inputs, torch.float32)  # type: ignore[arg-type]
        expected = precise.losses()

        def opened() -> Ours:
            module = graphc.open(HERE / "modules" / w.name, verify=False)
            return Ours(module, inputs, self.stream.cuda_stream if self.on_gpu else None)

        ours = self.attempt(row, "ours", opened)
        if ours is not None:
            row["error"] = difference(ours.losses, expected)
            row["right"] = bool(row["error"] <= TOLERANCES[w.precision])
            row["ours us"] = self.microseconds(row, "ours us", ours.call)
        dtype = DTYPES[w.precision]
        if self.on_gpu:
            torch.backends.cuda.matmul.allow_tf32 = w.precision == "tf32"
            torch.backends.cudnn.allow_tf32 = w.precision == "tf32"
        theirs = Theirs(self.peer(w, precise=True), inputs, dtype)  # type: ignore[arg-type]
        if w.precision != "f32":
            row["error of torch"] = self.attempt(
                row, "torch", lambda: difference(theirs.losses(), expected)
            )
        row["eager us"] = self.microseconds(row, "eager", theirs.step)
        if self.on_gpu:
            replay = self.attempt(row, "graph", lambda: self.captured(theirs.step, []))
            if replay is not None:
                row["graph us"] = self.microseconds(row, "graph", replay)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def ours(
        self,
        w: Workload,
        inputs: dict[str, torch.Tensor],
        peer: Callable[..., Any] | None,
        row: dict[str, Any],
    ) -> Callable[[], Any]:
        """Opens the module, notes its error, and returns what repeats a call of it."""
        start = time.monotonic()
        module = graphc.open(HERE / "modules" / w.name, verify=False)
        row["open ms"] = round(1e3 * (time.monotonic() - start), 1)
        expected = self.expected(w, inputs)
        call: Callable[[], Any]
        if self.on_gpu:
            stream = self.stream.cuda_stream
            bound = module.bind(inputs, stream=stream)
            for _ in range(3):  # as it is, captured, repeated
                bound()
            module.synchronize()
            got = {n: torch.from_dlpack(x) for n, x in bound.outputs.items()}
            call = bound
        else:
            arrays = {n: _numpy(x) for n, x in inputs.items()}
            for _ in range(3):
                got = {n: _tensor(a) for n, a in module(**arrays).items()}
            call = lambda: module(**arrays)  # noqa: E731
        row["error"] = max(
            error_of(got[name], want) for name, want in zip(got, expected, strict=True)
        )
        kind = "bf16" if any(i.dtype == "bf16" for i in w.inputs.values()) else w.precision
        row["right"] = bool(row["error"] <= TOLERANCES[kind])
        if peer is not None and w.twin and w.precision != "f32":
            cast = [self.as_peer_takes(w, x) for x in inputs.values()]
            with torch.inference_mode():
                theirs = _many(peer(*cast))
            row["error of torch"] = max(
                error_of(a, b) for a, b in zip(theirs, expected, strict=True)
            )
        return call

    def inputs(self, w: Workload) -> dict[str, torch.Tensor]:
        """The drawn inputs on the device."""
        return {
            name: torch.from_numpy(draw(spec, i)).to(self.device, DTYPES.get(spec.dtype))
            for i, (name, spec) in enumerate(w.inputs.items())
        }

    def as_peer_takes(self, w: Workload, x: torch.Tensor) -> torch.Tensor:
        """An input as the peer's precision wants it."""
        if x.is_floating_point() and w.precision != "f32":
            x = x.to(DTYPES[w.precision])
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 and w.twin else x

    def peer(self, w: Workload, precise: bool = False) -> Callable[..., Any]:
        """What PyTorch does in its place: an operation, or the twin with the same weights; `precise` in f32."""
        dtype = torch.float32 if precise else DTYPES[w.precision]
        if w.model == "Norm":
            scale, bias = (
                self.weight(f"norm.{n}", (w.settings["columns"],), torch.float32)
                for n in ("weight", "bias")
            )
            return lambda x: F.layer_norm(x, (x.shape[1],), scale.to(x.dtype), bias.to(x.dtype))
        if w.model == "Conv":
            c = w.settings["channels"]
            weight = self.weight("conv.weight", (c, c, 3, 3), dtype)
            weight = weight.contiguous(memory_format=torch.channels_last)
            return lambda x: F.conv2d(
                x.contiguous(memory_format=torch.channels_last), weight, padding=1
            )
        if w.file == KERNELS:
            return KERNEL_OPS[w.model]
        assert w.twin is not None
        place, arguments = w.twin
        file, name = place.split(".")
        twin: torch.nn.Module = getattr(importlib.import_module(f"twins.{file}"), name)(*arguments)
        state = {
            n: torch.from_numpy(parameter(n, tuple(t.shape))) if t.ndim else t
            for n, t in twin.state_dict().items()
        }
        twin.load_state_dict(state)
        twin = twin.to(self.device, dtype).eval()
        if w.twin[0].startswith("vision"):
            twin = twin.to(memory_format=torch.channels_last)
        return twin

    def weight(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(parameter(name, shape)).to(self.device, dtype)

    def expected(self, w: Workload, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """The results in float64 of a kernel, in f32 of a network."""
        precise = self.peer(w, precise=True)
        values = list(inputs.values())
        if not w.twin:
            values = [x.double() for x in values]
            if w.model == "Conv":
                values = [x.float() for x in values]
            if w.model.startswith("Attention"):  # one after another: scores in float64 are large
                parts = [
                    _many(KERNEL_OPS[w.model](*(x[i : i + 1] for x in values)))
                    for i in range(values[0].shape[0])
                ]
                return [torch.cat(part) for part in zip(*parts, strict=True)]
        with torch.inference_mode():
            return _many(precise(*values))

    # ---- time

    def microseconds(self, row: dict[str, Any], name: str, call: Callable[[], Any]) -> float | None:
        seconds = self.attempt(row, name, lambda: self.seconds(call))
        return None if seconds is None else round(1e6 * seconds, 2)

    def seconds(self, call: Callable[[], Any]) -> float:
        """The median, over batches, of a call's time in a stream that is never empty."""
        if not self.on_gpu:  # its times mean nothing
            return self.batch(call, 1)
        for _ in range(5):
            call()
        each = self.batch(call, 3)
        count = max(1, min(2000, int(BATCH_SECONDS / max(each, 1e-6))))
        return float(np.median([self.batch(call, count) for _ in range(BATCHES)]))

    def batch(self, call: Callable[[], Any], count: int) -> float:
        if not self.on_gpu:
            start = time.perf_counter()
            for _ in range(count):
                call()
            return (time.perf_counter() - start) / count
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(count):
            call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / count

    def captured(self, peer: Callable[..., Any], inputs: list[torch.Tensor]) -> Callable[[], Any]:
        """The eager peer as one CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
            peer(*inputs)
        return graph.replay

    def compiled(self, w: Workload) -> None:
        """torch.compile(mode="max-autotune"), which includes CUDA graphs; it can take minutes."""
        row = self.results["workloads"][w.name]
        if time.monotonic() > self.end:
            row.setdefault("errors", {})["compile"] = "no time left"
            return
        start = time.monotonic()

        def work() -> float | None:
            torch._dynamo.reset()
            peer = torch.compile(self.peer(w), mode="max-autotune")
            cast = [self.as_peer_takes(w, x) for x in self.inputs(w).values()]
            with torch.inference_mode():
                return self.microseconds(row, "compile", lambda: peer(*cast))

        row["compile us"] = self.attempt(row, "compile", work)
        row["seconds of compile"] = round(time.monotonic() - start, 1)
        self.save()
        print(w.name, "torch.compile", row["compile us"], flush=True)

    # ---- the table

    def table(self, workloads: list[Workload]) -> str:
        """Times in microseconds; ratios are PyTorch's time over ours."""
        copy = self.results["machine"].get("copy GB/s")
        head = "| | right | error | ours us | rate | eager | graph | compile |"
        lines = [head, "|" + " --- |" * 8]
        for w in workloads:
            row = self.results["workloads"].get(w.name, {})
            ours = row.get("ours us")
            rate = ""
            if ours and w.flops:
                rate = f"{w.flops / ours / 1e6:.0f} TFLOP/s"
            elif ours and copy:
                rate = f"{w.bytes / ours / 1e3 / copy:.2f} of copy"
            ratios = [
                f"{row[k] / ours:.2f}" if ours and row.get(k) else "-"
                for k in ("eager us", "graph us", "compile us")
            ]
            error = f"{row['error']:.1e}" if "error" in row else "-"
            right = {True: "yes", False: "NO"}.get(row.get("right"), "-")  # type: ignore[arg-type]
            cells = [w.name, right, error, f"{ours or '-'}", rate, *ratios]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def error_of(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference, as a share of the largest result; infinite where one is not a number."""
    got, want = got.double(), want.double()
    worst = float((got - want).abs().max() / want.abs().max().clamp_min(1e-30))
    return worst if worst == worst else float("inf")


def _many(results: Any) -> list[torch.Tensor]:
    return list(results) if isinstance(results, (tuple, list)) else [results]


def _numpy(x: torch.Tensor) -> np.ndarray:
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


def _tensor(x: np.ndarray) -> torch.Tensor:
    if x.dtype.itemsize == 2 and x.dtype != np.float16:  # bf16, under whatever name
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("gpu_results.json"))
    parser.add_argument("--seconds", type=float, default=420, help="no torch.compile starts after")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    given = parser.parse_args()
    runner = Runner(given.device, given.seconds, given.output)
    known = SMALL if runner.pack["small"] else FULL
    workloads = [w for w in known if w.name in runner.pack["modules"]]
    runner.describe()
    for workload in workloads:
        runner.measure(workload)
        if runner.on_gpu:
            torch.cuda.empty_cache()
    if runner.on_gpu and not given.no_compile:
        for workload in workloads:
            if workload.twin and not workload.training:
                runner.compiled(workload)
    print(runner.table(workloads))


if __name__ == "__main__":
    main()
