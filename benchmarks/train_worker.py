"""One contender of `train.py` in a process of its own: compiles a training step once, then runs it on request.

Takes its job as JSON in the first argument: `kind`, `name` (of the workload) and `threads`; speaks as `worker.py` does.
The first answer carries the losses of the first steps, the seconds it took to get ready, and the memory of a step.

**Memory of a step** is how far the process's resident set rises while one runs, over what it is before: weights, what
the optimizer remembers, the batch, code. Before, everything that a step leaves for the next is given back (gradients,
arenas, free pages of malloc), so that each contender pays for all that it needs from the start of a step to its end.
Linux tells the peak (`VmHWM`) and lets a process reset it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # graphc, also where it is not installed

from prepare import BUILD
from train_workloads import TRAININGS, Training
from worker import serve

Job = dict[str, Any]
STEPS = 3
"""Whose losses are compared."""
SAMPLES = 3
"""Steps whose memory is measured; the median counts."""


@dataclass(frozen=True)
class Stepper:
    """`step` trains on the batch and returns the loss before; `release` frees all that is neither state nor data."""

    step: Callable[[], float]
    release: Callable[[], None] = lambda: None


def ours(work: Training, job: Job) -> Stepper:
    """The step of a `.nn` file, as `graphc train` compiles it."""
    import graphc
    from graphc.train.trainer import Trainer

    path = BUILD / "train" / f"{job['name']}.nn"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(work.text(), encoding="utf-8")
    model = graphc.load(path, dims=work.dims, **work.settings)
    weights = {k: v.numpy() for k, v in work.make_twin().state_dict().items()}
    folder = tempfile.TemporaryDirectory(prefix="graphc-train-")
    place = Trainer(model, weights, threads=job["threads"], evaluation=False).save(
        Path(folder.name) / "step"
    )

    def opened() -> graphc.Module:
        return graphc.open(place, threads=job["threads"], verify=False)

    module = opened()
    batch = work.draw() | module.initial_state()

    def step() -> float:
        assert folder  # it lives as long as the module
        return float(module.run(batch)["loss"])

    def release() -> None:
        nonlocal module
        module.close()
        module = opened()

    return Stepper(step, release)


def torch(work: Training, job: Job) -> Stepper:
    """PyTorch, eager or compiled."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(job["threads"])
    twin = work.make_twin()
    update = torch.optim.SGD(twin.parameters(), lr=work.lr, momentum=work.momentum)
    *inputs, label = (torch.from_numpy(x) for x in work.draw().values())

    def loss_of(*inputs: Any) -> Any:
        return cross_entropy(twin(*inputs).flatten(0, -2), label.flatten())

    forward = torch.compile(loss_of) if job["kind"] == "torch.compile" else loss_of

    def step() -> float:
        update.zero_grad()
        loss = forward(*inputs)
        loss.backward()
        update.step()
        return float(loss.detach())

    return Stepper(step, update.zero_grad)


def jax(work: Training, job: Job) -> Stepper:
    """JAX: XLA starts a thread for each processor that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    from train_jax import stepper

    return Stepper(stepper(work))


STEPPERS = {"graphc": ours, "torch": torch, "torch.compile": torch, "jax": jax}


def _resident(key: str) -> int:
    """`VmRSS` or its peak `VmHWM`, in KiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {key}")


def memory(stepper: Stepper) -> int:
    """KiB that a step needs beyond what was there before it."""
    trim = ctypes.CDLL(None).malloc_trim
    rises = []
    for _ in range(SAMPLES):
        stepper.release()
        gc.collect()
        trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _resident("VmRSS")
        stepper.step()
        rises.append(_resident("VmHWM") - before)
    return sorted(rises)[SAMPLES // 2]


def main() -> None:
    """Serves one job."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to the log

    def answer(**what: object) -> None:
        print(json.dumps(what), file=out, flush=True)

    job = json.loads(sys.argv[1])
    try:
        begin = time.perf_counter()
        stepper = STEPPERS[job["kind"]](TRAININGS[job["name"]], job)
        losses = [stepper.step()]
        ready = time.perf_counter() - begin
        losses += [stepper.step() for _ in range(STEPS - 1)]
        answer(losses=losses, ready=ready, memory=memory(stepper))

        def run() -> list[Any]:
            return [stepper.step()]

        with contextlib.suppress(BrokenPipeError):
            serve(run, answer)
    except Exception as error:
        traceback.print_exc()
        answer(error=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
