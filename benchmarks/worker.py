"""One contender in a process of its own: loads a model once, then runs it on request.

Speaks JSON lines on standard input and output: {"do": "run", "calls": n} answers {"seconds": per call, "waited": share
of the time its threads sat in the run queue}; {"do": "result", "path": p} saves the outputs as .npz.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Runner = Callable[[], list[np.ndarray]]


def ours(folder: str, feeds: dict[str, np.ndarray], threads: int) -> Runner:
    import graphc

    module = graphc.open(folder, threads=threads)
    return lambda: list(module(**feeds).values())


def onnxruntime(path: str, feeds: dict[str, np.ndarray], threads: int) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    bound = dict(zip(names, feeds.values(), strict=True))
    return lambda: session.run(None, bound)


def openvino(path: str, feeds: dict[str, np.ndarray], threads: int) -> Runner:
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
    arrays = list(feeds.values())

    def run() -> list[np.ndarray]:
        result = request.infer(arrays)
        return [result[o] for o in result]

    return run


def torch(name: str, feeds: dict[str, np.ndarray], threads: int) -> Runner:
    import torch as th
    from workloads import WORKLOADS

    th.set_num_threads(threads)
    th.set_grad_enabled(False)
    twin = WORKLOADS[name].twin()
    arguments = [th.from_numpy(a) for a in feeds.values()]

    def run() -> list[np.ndarray]:
        result = twin(*arguments)
        return [r.numpy() for r in (result if isinstance(result, tuple) else (result,))]

    return run


RUNNERS = {"graphc": ours, "onnxruntime": onnxruntime, "openvino": openvino, "torch": torch}


def waited() -> float:
    """Seconds that this process's threads have been runnable without a processor."""
    total = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        try:
            total += int(Path(path).read_text().split()[1])
        except OSError:
            continue  # the thread has ended
    return total * 1e-9


def main() -> None:
    kind, model, feeds_path, threads = sys.argv[1:5]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    with np.load(feeds_path, allow_pickle=False) as file:
        feeds = {k: file[k] for k in file.files}
    run = RUNNERS[kind](model, feeds, int(threads))
    run()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "result":
            np.savez(request["path"], *run())
            print(json.dumps({"saved": True}), file=answers, flush=True)
            continue
        before, start = waited(), time.perf_counter()
        for _ in range(request["calls"]):
            run()
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds / request["calls"], "waited": (waited() - before) / seconds}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
