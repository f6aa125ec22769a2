"""One contender of `train.py` in a process of its own: compiles a training step once, then runs it on request.

Takes its job as JSON in the first argument: `kind`, `name` (of the workload) and `threads`; speaks as `worker.py` does.
The first answer carries the losses of the first steps, the seconds it took to get ready, and the peak memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # graphc, also where it is not installed

from prepare import BUILD
from train_workloads import TRAININGS, Training
from worker import serve

Step = Callable[[], float]
Job = dict[str, Any]
STEPS = 3
"""Whose losses are compared."""


def ours(work: Training, job: Job) -> Step:
    """The step of a `.nn` file, as `graphc train` runs it."""
    import graphc
    from graphc.train.trainer import Trainer

    path = BUILD / "train" / f"{job['name']}.nn"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(work.text(), encoding="utf-8")
    model = graphc.load(path, dims=work.dims, **work.settings)
    weights = {k: v.numpy() for k, v in work.make_twin().state_dict().items()}
    trainer = Trainer(model, weights, threads=job["threads"], evaluation=False)
    batch = work.draw()
    return lambda: float(trainer.run(batch)["loss"])


def _torch(work: Training, job: Job, compiled: bool) -> Step:
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(job["threads"])
    twin = work.make_twin()
    update = torch.optim.SGD(twin.parameters(), lr=work.lr, momentum=work.momentum)
    *inputs, label = (torch.from_numpy(x) for x in work.draw().values())

    def loss_of(*inputs: Any) -> Any:
        return cross_entropy(twin(*inputs), label)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        update.zero_grad()
        loss = forward(*inputs)
        loss.backward()
        update.step()
        return float(loss.detach())

    return step


STEPPERS: dict[str, Callable[[Training, Job], Step]] = {
    "graphc": ours,
    "torch": lambda work, job: _torch(work, job, False),
    "torch.compile": lambda work, job: _torch(work, job, True),
}


def main() -> None:
    """Serves one job."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to the log

    def answer(**what: object) -> None:
        print(json.dumps(what), file=out, flush=True)

    job = json.loads(sys.argv[1])
    try:
        begin = time.perf_counter()
        step = STEPPERS[job["kind"]](TRAININGS[job["name"]], job)
        losses = [step()]
        ready = time.perf_counter() - begin
        losses += [step() for _ in range(STEPS - 1)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer(losses=losses, ready=ready, peak=peak)

        def run() -> list[Any]:
            return [step()]

        with contextlib.suppress(BrokenPipeError):
            serve(run, answer)
    except Exception as error:
        traceback.print_exc()
        answer(error=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
