"""One contender in a process of its own: loads a model once, then runs it on request.

Takes its job as JSON in the first argument: `kind`, `name` (of the workload), `threads`, `precision`, and the paths
`module`, `onnx`, `weights`, `feeds`. Speaks JSON lines on standard input and output: {"do": "run", "calls": n} answers
{"seconds": per call, "waited": share of the time that its threads sat in the run queue}; {"do": "result", "path": p}
saves the outputs as .npz.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # graphc, also where it is not installed

Arrays = dict[str, np.ndarray]
Runner = Callable[[], list[np.ndarray]]
Job = dict[str, Any]


def ours(job: Job, feeds: Arrays) -> Runner:
    import graphc

    module = graphc.open(job["module"], threads=job["threads"])
    return lambda: list(module(**feeds).values())


def onnxruntime(job: Job, feeds: Arrays) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = ort.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
    bound = dict(zip([i.name for i in session.get_inputs()], feeds.values(), strict=True))
    return lambda: session.run(None, bound)


def openvino(job: Job, feeds: Arrays) -> Runner:
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": job["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": job["precision"],
    }
    request = ov.Core().compile_model(job["onnx"], "CPU", settings).create_infer_request()
    arrays = list(feeds.values())

    def run() -> list[np.ndarray]:
        return list(request.infer(arrays, share_inputs=True, share_outputs=True).values())

    return run


def torch(job: Job, feeds: Arrays) -> Runner:
    import torch as th
    from prepare import load_twin, outputs, tensors
    from workloads import find

    th.set_num_threads(job["threads"])
    twin = load_twin(find(job["name"]), Path(job["weights"]))
    if job["kind"] == "torch.compile":
        import torch._inductor.config as inductor

        inductor.freezing = (
            True  # weights are constants here as for everybody else: packed at build time
        )
        twin = th.compile(twin)
    arguments = tensors(feeds)
    return lambda: outputs(twin(*arguments))


RUNNERS: dict[str, Callable[[Job, Arrays], Runner]] = {
    "graphc": ours,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "torch": torch,
    "torch.compile": torch,
}


def waited() -> float:
    """Seconds that this process's threads have been runnable without a processor."""
    total = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        try:
            total += int(Path(path).read_text().split()[1])
        except OSError:
            continue  # the thread has ended
    return total * 1e-9


def hurry(on: bool) -> None:
    """Gives all threads a real-time priority, or takes it back. Raises PermissionError without the right to."""
    policy = os.SCHED_RR if on else os.SCHED_OTHER
    for path in glob.glob("/proc/self/task/*"):
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            os.sched_setscheduler(int(Path(path).name), policy, os.sched_param(int(on)))


def block(run: Runner, calls: int, urgent: bool) -> dict[str, float]:
    """Runs a third of the calls to have everything back in the caches, then times all of them.

    A call that fills a block by itself is not repeated: it is long enough to hide what the caches had lost.
    """
    if urgent:
        hurry(True)
    for _ in range(-(-calls // 3) if calls > 1 else 0):
        run()
    before, start = waited(), time.perf_counter()
    for _ in range(calls):
        run()
    seconds = time.perf_counter() - start
    result = {"seconds": seconds / calls, "waited": (waited() - before) / seconds}
    if urgent:
        hurry(False)
    return result


def serve(run: Runner, answer: Callable[..., None]) -> None:
    """Answers requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "result":
            np.savez(request["path"], *run())
            answer(saved=True)
            continue
        answer(**block(run, request["calls"], request["urgent"]))


def main() -> None:
    job = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        with np.load(job["feeds"], allow_pickle=False) as file:
            feeds = {k: file[k] for k in file.files}
        run = RUNNERS[job["kind"]](job, feeds)
        run()
        answer(ready=True)
        serve(run, answer)
    except Exception as error:
        traceback.print_exc()
        answer(error=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
